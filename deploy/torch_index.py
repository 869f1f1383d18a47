#!/usr/bin/env python3
"""Which index torch comes from, as options of pip: pip install $(python3 deploy/torch_index.py) torch==2.13.0

On Linux PyPI's torch brings some 3 GB of CUDA libraries, which a machine without an NVIDIA driver cannot use. So where no driver is
found, PyTorch's index of CPU builds is asked once, within a few seconds, whether it has this version for this Python and machine.
Where it does not answer, pip takes torch from where it takes all else. TORCH_INDEX_URL overrules all of this.

Prints `--index-url URL`, or nothing, to standard output, and one line of why to standard error. Needs Python 3.11 alone.
"""

import argparse
import os
import platform
import re
import shutil
import sys
import threading
import urllib.parse
import urllib.request
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CONSTRAINTS = Path(__file__).parent / "constraints.txt"
# What the kernel shows of the driver, and its library in Windows' Linux, where nothing else is seen.
DRIVERS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1")
PROBE_SECONDS = 5.0
MAX_BYTES = 16 * 1024 * 1024  # of the index's page, which has less than one


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--constraints", type=Path, default=CONSTRAINTS, help="The file that pins torch.")
    options.add_argument("--cpu", action="store_true", help="For a CPU, whatever driver is here.")
    options.add_argument("--cpu-index", default=CPU_INDEX, metavar="URL", help="Asked in the place of PyTorch's own.")
    options.add_argument("--drivers", nargs="*", default=DRIVERS, metavar="FILE", help="Files that only a driver brings.")
    index, reason = choose(options.parse_args())
    print(f"torch: {reason}", file=sys.stderr)
    if index:
        print("--index-url", index)


def choose(options: argparse.Namespace) -> tuple[str, str]:
    """The index, "" for pip's own, and why."""
    if told := os.environ.get("TORCH_INDEX_URL", "").strip():
        return told, f"from {without_password(told)}, as TORCH_INDEX_URL says"
    if platform.system() != "Linux":
        return "", "from PyPI, whose build for this system is small"
    if not options.cpu and has_driver(options.drivers):
        return "", "from PyPI, with CUDA: an NVIDIA driver is here"
    version = pinned(options.constraints)
    if answers(f"{options.cpu_index}/torch/", version):
        return options.cpu_index, f"the CPU build, from {options.cpu_index}: no NVIDIA driver is here"
    return "", f"from PyPI, some 3 GB with CUDA: {options.cpu_index} does not offer torch {version} within {PROBE_SECONDS:g} s"


def has_driver(files: list[str]) -> bool:
    return any(Path(file).exists() for file in files) or shutil.which("nvidia-smi") is not None


def pinned(constraints: Path) -> str:
    found = re.search(r"^torch==(\S+)", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        sys.exit(f"{constraints} pins no torch")
    return found[1]


def answers(url: str, version: str) -> bool:
    """Whether that page lists a file of this version for this Python and machine. Asked in a thread: no other timeout is whole."""
    page: list[str] = []
    asking = threading.Thread(target=lambda: page.append(read(url)), daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    name = rf"torch-{re.escape(version)}(\+cpu)?-{python}-{python}-\w*{re.escape(platform.machine())}\.whl"
    return bool(page) and re.search(name, urllib.parse.unquote(page[0])) is not None


def read(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as reply:  # noqa: S310 - an operator's own
            return str(reply.read(MAX_BYTES).decode("utf-8", "replace"))
    except (OSError, ValueError):
        return ""


def without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", url)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # a thread that still waits for a name keeps nobody
