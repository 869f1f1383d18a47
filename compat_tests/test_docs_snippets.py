"""The Python of README.md and docs/api.md, run as it stands: the address and the key are replaced, nothing else."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.process import FLOAT32_ROW, ROOT, Gateway
from compat_tests.truth import Truth, assert_close

PAGES = (ROOT / "README.md", ROOT / "docs/api.md")
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
SNIPPETS = {
    f"{page.name}-{number}": code
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), start=1)
}
WITH_PROMPTS = [name for name, code in SNIPPETS.items() if "query_vector" in code]
CLIENTS = ("OpenAI(", "OpenAIEmbeddings(", "OpenAIEmbedding(", "OpenAIDocumentEmbedder(")
ADDRESS, KEY = "http://127.0.0.1:8000", "YOUR_API_KEY"
QUERY = "query: When is honey harvested?"
DOCUMENTS = ["passage: Honey is harvested in July.", "passage: The piano was tuned."]
# MiniLM's weights stand in for e5's, which a test cannot download; the prompts are those of the page.
E5_ROW = FLOAT32_ROW | {"name": "multilingual-e5-small", "aliases": [], "prompts": {"query": "query: ", "document": "passage: "}}


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    models = json.dumps([FLOAT32_ROW, E5_ROW])
    folder = tmp_path_factory.mktemp("prompted")
    with running(Gateway(folder, GATEWAY_API_KEYS=ENVIRONMENT_KEY, GATEWAY__MODELS=models)) as gateway:
        yield gateway


def run(code: str, gateway: Gateway, folder: Path) -> Any:
    """What the snippet's variables with vectors hold at its end, or nothing where it has none."""
    script = folder / "snippet.py"
    end = "import json\nprint(json.dumps([globals().get(name) for name in ('query_vector', 'document_vectors')]))\n"
    script.write_text(f"{code.replace(ADDRESS, gateway.origin).replace(KEY, ENVIRONMENT_KEY)}\n{end}", encoding="utf-8")
    environment = os.environ | {"PYTHONWARNINGS": "ignore", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    done = subprocess.run(
        [sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_there_is_a_snippet_with_prompts_for_each_client() -> None:
    assert sorted(
        client for name in WITH_PROMPTS for client in CLIENTS if re.search(rf"\b{re.escape(client)}", SNIPPETS[name])
    ) == sorted(CLIENTS)


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_runs_as_it_stands(prompted: Gateway, truth: Truth, tmp_path: Path, name: str) -> None:
    assert ADDRESS in SNIPPETS[name]
    assert KEY in SNIPPETS[name]
    query, documents = run(SNIPPETS[name], prompted, tmp_path)
    assert (query is not None) == (name in WITH_PROMPTS)
    if query is not None:
        assert_close(query, truth.vector(QUERY))
        assert_close(documents, truth.vectors(DOCUMENTS))
