"""`python -m benchmarks.gpu.pack`: the folder that a machine without an index of packages needs beside this repository.

Wheels of what the engine imports besides torch and sentence-transformers, for every Python since 3.11, and MiniLM in float16.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from benchmarks.gpu.__main__ import PACKED, minilm_folder

FOLDER = PACKED.parent
PACKAGES = ("msgspec", "orjson", "platformdirs", "prometheus-client", "structlog")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
MAX_BYTES = 60 * 1000 * 1000
WEIGHTS = "model.safetensors"


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    carry_minilm(FOLDER / PACKED.name)
    carry_wheels(FOLDER / "wheels")
    num_bytes = size_of(FOLDER)
    print(f"{FOLDER}: {num_bytes / 1e6:.1f} MB of at most {MAX_BYTES / 1e6:.0f}")
    sys.exit(0 if num_bytes <= MAX_BYTES else 1)


def carry_minilm(folder: Path) -> None:
    """Half of its bytes are digits that half precision does not read."""
    source = minilm_folder(None)
    ignored = shutil.ignore_patterns(WEIGHTS, "README.md", "data_config.json", "train_script.py", ".git*")
    shutil.copytree(source, folder, ignore=ignored, dirs_exist_ok=True)
    tensors = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(source / WEIGHTS).items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}, indent=2), encoding="utf-8")


def carry_wheels(folder: Path, packages: Sequence[str] = PACKAGES) -> None:
    constraints = Path("deploy/constraints.txt")
    for python in PYTHONS:
        options = ["--only-binary=:all:", "--no-deps", "--python-version", python, "--implementation", "cp", "-d", str(folder)]
        options += [option for platform in PLATFORMS for option in ("--platform", platform)]
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--disable-pip-version-check",
                "-c",
                str(constraints),
                *options,
                *packages,
            ],
            check=True,
        )


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
