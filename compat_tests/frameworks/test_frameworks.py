"""The lines of docs/frameworks.md, run as they stand by each framework; only the address and the key are replaced."""

import json
import os
import re
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.process import ROOT, Gateway
from compat_tests.truth import Truth, assert_close

PYTHON = ROOT / ".venv-frameworks/bin/python"
PAGE = (ROOT / "docs/frameworks.md").read_text(encoding="utf-8")
LINES = dict(re.findall(r"^### ([^\n]+)\n.*?^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
ADDRESS, KEY, TEXT = "http://127.0.0.1:8000", "YOUR_API_KEY", "Hello, world"
END = """
import json, os, sys
print("vectors:" + json.dumps([[float(number) for number in row] for row in vectors]), flush=True)
os._exit(0)  # threads of a framework's telemetry would go on
"""
NO_TELEMETRY = {
    "HAYSTACK_TELEMETRY_ENABLED": "False", "ANONYMIZED_TELEMETRY": "False", "MEM0_TELEMETRY": "False", "AGNO_TELEMETRY": "false",
    "GRAPHITI_TELEMETRY_ENABLED": "false", "SCARF_NO_ANALYTICS": "true", "DO_NOT_TRACK": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
}  # fmt: skip
BOUND_SECONDS = 110
# huggingface_hub's own client refuses every address while it is told to stay offline, the gateway's too.
NEEDS_HUB_CLIENT = "huggingface_api"

Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def ended(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Ended]]:
    """Every framework's process, two at once: most of their time is their imports."""
    if not PYTHON.exists():
        reason = "the frameworks are not installed: make frameworks-setup"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    pool = ThreadPoolExecutor(2)
    return {name: pool.submit(run, code, gateway, tmp_path_factory.mktemp("framework")) for name, code in LINES.items()}


def run(code: str, gateway: Gateway, folder: Path) -> Ended:
    script = folder / "lines.py"
    script.write_text(code.replace(ADDRESS, gateway.origin).replace(KEY, ENVIRONMENT_KEY) + END, encoding="utf-8")
    environment = {**os.environ, **NO_TELEMETRY, "HOME": str(folder), "PYTHONWARNINGS": "ignore"}
    if NEEDS_HUB_CLIENT in code:
        del environment["HF_HUB_OFFLINE"]
    return subprocess.run(
        [PYTHON, script], cwd=folder, env=environment, capture_output=True, text=True, timeout=BOUND_SECONDS, check=False
    )


def test_every_section_of_the_page_that_says_so_is_run() -> None:
    sections = PAGE.partition("## Run by a test")[2].partition("\n## ")[0]
    assert re.findall(r"^### (.+)$", sections, flags=re.MULTILINE) == list(LINES)
    assert len(LINES) == PAGE.count("```python")


@pytest.mark.timeout(360)
@pytest.mark.parametrize("name", LINES)
def test_a_frameworks_own_lines_give_the_models_vectors(ended: dict[str, Future[Ended]], truth: Truth, name: str) -> None:
    assert ADDRESS in LINES[name]
    assert KEY in LINES[name]

    process = ended[name].result()

    [told] = [line for line in process.stdout.splitlines() if line.startswith("vectors:")] or [process.stderr[-3000:]]
    [vector] = json.loads(told.removeprefix("vectors:"))
    assert_close(vector, truth.vector(TEXT))
