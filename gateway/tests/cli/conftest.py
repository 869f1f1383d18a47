"""The command `gateway` as a user runs it: in a folder, with an environment, until it ends."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

END_SECONDS = 100


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def gateway(tmp_path: Path) -> Command:
    """Runs `gateway` in an empty folder with a data folder of its own; further names are its environment."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}

    def run(*arguments: str, **environ: str) -> Ended:
        ended = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env={**bare, "GATEWAY_DATA_DIR": str(tmp_path / "data"), **environ},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=END_SECONDS,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


def told(ended: Ended) -> str:
    """The one line of a command that was refused."""
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("gateway: ")
    assert ended.err.endswith("\n")
    assert ended.err.count("\n") == 1, ended.err
    return ended.err.strip()
