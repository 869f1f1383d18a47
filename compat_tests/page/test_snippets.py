"""Every snippet is copied from the page and run as it stands, a key in the place of the placeholder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from compat_tests.chromium import skip_or_fail
from compat_tests.page.conftest import HOSTILE_NAME
from compat_tests.page.databases import elasticsearch, postgres
from compat_tests.page.visit import Visit
from compat_tests.process import ROOT

NODE_MODULES = ROOT / "compat_tests/node/node_modules"
PLACEHOLDER = "YOUR_API_KEY"
BEGINNINGS = {"python": [sys.executable], "sh": ["bash"], "js": ["node"]}
SNIPPETS = {
    "curl": "sh",
    "OpenAI, Python": "python",
    "OpenAI, Node": "js",
    "LangChain, Python": "python",
    "LangChain, JS": "js",
    "LlamaIndex": "python",
    "Vercel AI SDK": "js",
    "Elasticsearch": "python",
    "pgvector": "python",
}
NUMBERS = re.compile(r"-?\d+\.\d+")


def copied(visit: Visit, name: str) -> str:
    """What the clipboard holds once the snippet was copied."""
    page = visit.page
    page.locator(".views a[href='#use']").click()
    page.get_by_role("tab", name=name, exact=True).click()
    page.get_by_label("Copy the code").click()
    expect(page.locator(".code .copy")).to_have_text("Copied")
    return str(page.evaluate("() => navigator.clipboard.readText()"))


def ran(code: str, language: str, folder: Path) -> str:
    """What it printed."""
    if language == "js":
        if shutil.which("node") is None or not NODE_MODULES.is_dir():
            skip_or_fail("Node.js or its clients are missing: `npm ci` in compat_tests/node")
        (folder / "node_modules").symlink_to(NODE_MODULES)
    script = folder / {"python": "embed.py", "sh": "embed.sh", "js": "embed.mjs"}[language]
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [*BEGINNINGS[language], script],
        cwd=folder,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_tab_is_tried_here(visit: Visit) -> None:
    visit.enter().page.locator(".views a[href='#use']").click()
    assert visit.page.get_by_role("tab").all_inner_texts() == list(SNIPPETS)


@pytest.mark.parametrize(
    "name", ["curl", "OpenAI, Python", "OpenAI, Node", "LangChain, Python", "LangChain, JS", "LlamaIndex", "Vercel AI SDK"]
)
@pytest.mark.parametrize("model", ["all-MiniLM-L6-v2", HOSTILE_NAME], ids=["plain", "hostile"])
def test_a_snippet_runs_as_it_stands(visit: Visit, tmp_path: Path, name: str, model: str) -> None:
    visit.enter().page.locator("#model").select_option(model)
    code = copied(visit, name)
    assert code.count(PLACEHOLDER) == 1
    printed = ran(code.replace(PLACEHOLDER, visit.key), SNIPPETS[name], tmp_path)
    if name == "curl":
        reply = json.loads(printed)
        assert reply["model"] == model
        assert [len(item["embedding"]) for item in reply["data"]] == [384, 384]
    elif name == "Vercel AI SDK":
        assert -1 < float(printed.split()[1]) < 1
    else:
        assert "384" in printed
        assert len(NUMBERS.findall(printed)) >= 3


def test_the_snippet_for_elasticsearch_finds_the_text_that_is_meant(visit: Visit, tmp_path: Path) -> None:
    code = copied(visit.enter(), "Elasticsearch").replace(PLACEHOLDER, visit.key)
    with elasticsearch() as (url, index):
        printed = ran(code.replace("http://127.0.0.1:9200", url), "python", tmp_path)
    assert "I forgot my password." in printed.splitlines()[0]
    assert index.mapping["vector"] == {"type": "dense_vector", "dims": 384, "similarity": "cosine"}
    assert [len(document["vector"]) for document in index.documents.values()] == [384, 384, 384]


def test_the_snippet_for_pgvector_finds_the_text_that_is_meant_however_often_it_runs(visit: Visit, tmp_path: Path) -> None:
    code = copied(visit.enter(), "pgvector").replace(PLACEHOLDER, visit.key)
    with postgres() as port:
        for _ in range(2):
            printed = ran(code.replace("127.0.0.1:5432", f"127.0.0.1:{port}"), "python", tmp_path)
            assert "I forgot my password." in printed.splitlines()[0]
            assert len(printed.splitlines()) == 3


def test_before_there_is_a_key_the_code_names_what_is_missing(visit: Visit) -> None:
    code = copied(visit, "OpenAI, Python")
    assert 'model="YOUR_MODEL"' in code
    compile(code, "embed.py", "exec")
