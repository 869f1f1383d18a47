"""curl, told to do what a careful script would: to fail on errors, to try again, to stop waiting."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from compat_tests.matrix.clients.speaking import Asked, speak

TIMED_OUT = 28
NUM_RETRIES = "2"


class HTTPError(Exception):
    def __init__(self, status: int, body: str) -> None:
        super().__init__(body)
        self.status_code = status


class OperationTimedOut(Exception):
    """curl's exit code 28."""


def embed(asked: Asked) -> list[Any]:
    patience = ["--retry", NUM_RETRIES] if asked.timeout_seconds is None else ["--max-time", str(asked.timeout_seconds)]
    body = json.dumps({"model": asked.model, "input": asked.input, **asked.options}, ensure_ascii=False)
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"  # a file, for curl empties it before it tries again
        done = subprocess.run(
            [
                "curl", "--disable", "--silent", "--noproxy", "*", "--output", said, "--write-out", "%{http_code}", *patience,
                "--header", f"Authorization: Bearer {asked.key}", "--header", "Content-Type: application/json",
                "--data-binary", "@-", f"{asked.base_url}/embeddings",
            ],
            input=body.encode(),
            capture_output=True,
            check=False,
        )  # fmt: skip
        if done.returncode == TIMED_OUT:
            raise OperationTimedOut
        done.check_returncode()
        if done.stdout != b"200":
            raise HTTPError(int(done.stdout), said.read_text(encoding="utf-8"))
        return [row["embedding"] for row in json.loads(said.read_bytes())["data"]]


if __name__ == "__main__":
    first_line = subprocess.run(["curl", "--disable", "--version"], capture_output=True, text=True, check=True).stdout
    speak(first_line.split()[1], embed)
