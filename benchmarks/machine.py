"""Where and with what a run was made: figures of two machines, or of two versions, do not compare."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gateway.cpus import cpu_flags

PACKAGES = (
    "embeddings-gateway", "openvino", "torch", "sentence-transformers", "tokenizers", "litestar", "uvicorn", "numpy", "orjson",
)  # fmt: skip
LISTING = """
import json, platform
from importlib.metadata import distributions
names = {found.metadata["Name"].replace("_", "-"): found.version for found in distributions()}
print(json.dumps({"python": platform.python_version(), **names}))
"""


def machine() -> dict[str, str | int | float]:
    return {
        "cpu": cpu(),
        "cores": len(cores()) or os.cpu_count() or 0,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version_of(package) for package in PACKAGES}}


def place(about: dict[str, Any]) -> str:
    """The machine, as a table and a chart are headed."""
    return "{cpu}, {cores} cores, {memory_gb} GB, load {load_before} before".format(**about["machine"])


def programs(about: dict[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in about["versions"].items())


def cpu() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def has_native_bfloat16() -> bool:
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(cpu_flags())


def cores() -> list[int]:
    """Those this process may use; empty where the system has no such thing."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def on_cores(numbers: set[int] | None) -> Iterator[None]:
    """A process that is started inside stays on these cores, from its first moment; None leaves it all of them."""
    if not numbers or not (before := cores()):
        yield
        return
    os.sched_setaffinity(0, numbers)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def versions_in(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Of another environment; empty where there is none."""
    if not python.exists():
        return {}
    installed = json.loads(subprocess.run([python, "-c", LISTING], capture_output=True, text=True, check=True).stdout)
    return {package: installed.get(package, "not installed") for package in ("python", *packages)}


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
