"""Programs that the tests of deploy/ need and a machine may lack. Without one a test is skipped; where CI=true it fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
IS_CI = os.environ.get("CI") == "true"
IS_PROOF = IS_CI or os.environ.get("PROOF") == "1"  # `make proof`


def part(name: str, *, package: str) -> str:
    """The program's path: of this environment, or of the system."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"]))
    if found is None:
        missing(f"{name} is not on this machine: apt-get install {package}")
    return str(found)


def missing(reason: str) -> None:
    if IS_CI:
        pytest.fail(reason)
    pytest.skip(reason)


def told(*command: str | Path, **options: object) -> str:
    """What a command prints, both ways; it must end well."""
    ended = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
        **options,
    )
    assert ended.returncode == 0, f"{' '.join(map(str, command))}: exit code {ended.returncode}\n{ended.stdout}"
    return ended.stdout
