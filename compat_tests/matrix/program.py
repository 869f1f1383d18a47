"""A client's program, running: asked in lines of JSON, for as long as the session lasts."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compat_tests.matrix.cells import Client
from compat_tests.process import ROOT

NODE_FOLDER = ROOT / "compat_tests/node"
LITELLM_PYTHON = Path(os.environ.get("LITELLM_PYTHON", ROOT / ".venv-litellm/bin/python"))
NOWHERE = "http://127.0.0.1:9"  # nobody listens: whatever a client sends to anyone but the gateway ends here

QUIET = {
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HTTP_PROXY": NOWHERE,
    "HTTPS_PROXY": NOWHERE,
    "NO_PROXY": "127.0.0.1",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client raised: the name of its class, and the status where the class tells it."""

    name: str
    status: int | None
    message: str


class Program:
    """`version` is the client's own. Its stderr is in `log_file`."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.log_file = folder / f"{client.name}.log"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command(client),
                cwd=ROOT,
                env={**os.environ, **QUIET},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
            )
        self.version: str = self.heard()["version"]

    def ask(self, *, base_url: str, key: str, model: str, input: Any, **how: Any) -> list[list[float]] | Refusal:  # noqa: A002
        """`how` is `options` and `timeout_seconds`, as in clients/speaking.py."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"base_url": base_url, "key": key, "model": model, "input": input, **how}) + "\n")
        self.process.stdin.flush()
        said = self.heard()
        return Refusal(**said["error"]) if "error" in said else said["vectors"]

    def heard(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the client died:\n{self.log_file.read_text(encoding='utf-8')}"
        return dict(json.loads(line))

    def close(self) -> None:
        """The end of its input is its end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def command(client: Client) -> list[str | Path]:
    if client.is_node:
        return ["node", NODE_FOLDER / client.program]
    python = LITELLM_PYTHON if client.package == "litellm" else sys.executable
    return [python, "-m", f"compat_tests.matrix.clients.{client.program}"]
