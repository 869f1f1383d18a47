"""schemathesis drives the running gateway from its own /openapi.json, with every check it has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.process import ROOT, Gateway
from compat_tests.texts import MARKER

HOOKS = "compat_tests.matrix.schemathesis_hooks"
NUM_EXAMPLES = 60
HANG_SECONDS = 20
# text-embeddings-inference refuses with 422 and 424 what depends on the model: its prompts, its vocabulary, its kind. No schema can
# say that; at all other paths such a refusal counts as a fault. A batch names a file: one that is not there is a 400, as at OpenAI.
CONFIGURATION = """
[[operations]]
include-path-regex = "^/(|decode|embed|embed_all|embed_sparse|invocations|predict|similarity|tokenize|vertex)$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "422", "424", "429", "5xx"]

[[operations]]
include-path-regex = "^/v1/batches$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "404", "429", "5xx"]
"""


def schemathesis(gateway: Gateway, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Runs it with a fixed seed, so that a test that passes goes on passing; `folder` is where it leaves its files."""
    program = Path(sys.executable).with_name("schemathesis")
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    return subprocess.run(
        [
            program, "run", f"{gateway.origin}/openapi.json", "--mode", "all", "--seed", "1", "--no-color", "--continue-on-failure",
            "--max-examples", str(NUM_EXAMPLES), "--request-timeout", str(HANG_SECONDS), "--max-response-time", str(HANG_SECONDS),
            "--header", f"Authorization: Bearer {ENVIRONMENT_KEY}", "--header", f"X-Marker: {MARKER}", *options,
        ],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(ROOT), "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.timeout(300)
def test_schemathesis_finds_no_500_no_hang_and_no_answer_beside_the_document(reranking: Gateway, tmp_path: Path) -> None:
    gateway = reranking
    lines_before = len(gateway.log.splitlines())
    done = schemathesis(gateway, tmp_path, "--checks", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert gateway.status_of("/readyz") == 200
    lines = gateway.log.splitlines()[lines_before:]
    assert len(lines) > 300  # it was there, and what it sent was not written down
    assert gateway.metric("gateway_requests_total", having='outcome="ok"') > 0
    assert MARKER not in "\n".join(lines).lower()
