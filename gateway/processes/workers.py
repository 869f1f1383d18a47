"""How many fronts a machine gets: `server.workers = "auto"`."""

import os
import re
from importlib.util import find_spec
from pathlib import Path

from gateway.config import child_environment
from gateway.cpus import ROOT, num_cpus
from gateway.errors import ConfigurationError

ONE_PROCESS_CPUS = 7  # up to here one process: its event loop and the model's threads share the cores
MAX_FRONTS = 16
CPUS_PER_FRONT = 4  # without a GPU the engine computes on the same cores


def num_workers(workers: int | str, root: Path = ROOT) -> int:
    """The number of fronts; 1 is one process that is all of the gateway. `root` is where /dev, /proc and /sys are, for tests.

    Raises ConfigurationError on a platform without fork.
    """
    if not hasattr(os, "fork"):
        if workers not in {"auto", 1}:
            raise ConfigurationError(f"server.workers is {workers}: several processes need os.fork, which this platform lacks")
        return 1
    return int(workers) if workers != "auto" else fronts_for(num_cpus(root), has_gpu=has_gpu(root))


def fronts_for(cpus: int, *, has_gpu: bool) -> int:
    """The number of fronts for so many usable CPUs. With a GPU they have all the cores but one, which feeds the GPU."""
    if cpus <= ONE_PROCESS_CPUS:
        return 1
    return min(cpus - 1, MAX_FRONTS) if has_gpu else min(max(2, cpus // CPUS_PER_FRONT), MAX_FRONTS)


def has_gpu(root: Path = ROOT) -> bool:
    """Whether torch may use a GPU here, found without importing it: a driver's device that we may see, and a torch built for it."""
    devices = [*(root / "dev").glob("nvidia[0-9]*"), *(root / "dev").glob("dxg")]  # dxg: the driver of Windows, under WSL
    return _is_any_visible(len(devices), child_environment().get("CUDA_VISIBLE_DEVICES")) and _torch_has_cuda()


def _is_any_visible(num_devices: int, visible: str | None) -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves a device: its list ends at the first that there is not (CUDA's programming guide)."""
    first = None if visible is None else visible.split(",")[0].strip()
    if first is None or first.startswith(("GPU-", "MIG-")):
        return num_devices > 0
    return first.isdecimal() and int(first) < num_devices


def _torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA, as its version.py says."""
    spec = find_spec("torch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        try:
            text = (Path(folder) / "version.py").read_text(encoding="utf-8")
        except OSError:
            continue
        return re.search(r"^cuda\b[^=]*=\s*['\"]", text, re.MULTILINE) is not None
    return False
