"""How many CPUs this process may use: its affinity, and the quota of its control group.

A container limited to 4 CPUs of a 64-core machine sees 64 cores in its affinity. If it starts a thread for each, the kernel stops
all of them together for the rest of every period once they have used the quota.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path

ROOT = Path("/")
CGROUP = "sys/fs/cgroup"


def num_cpus(root: Path = ROOT) -> int:
    """The number of CPUs to use, at least 1. `root` is where /proc and /sys are, for tests."""
    return min(num_visible(), quota_cpus(root) or num_visible())


def num_visible() -> int:
    """The CPUs of the process's affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota_cpus(root: Path = ROOT) -> int | None:
    """The smallest CPU quota of the process's control group and those above it, in CPUs, rounded up. None without a quota.

    Sources: the kernel's admin-guide/cgroup-v2 (cpu.max) and scheduler/sched-bwc (cpu.cfs_quota_us, of version 1).
    """
    quotas = [quota / period for quota, period in _quotas(root) if quota > 0 and period > 0]
    return max(1, ceil(min(quotas))) if quotas else None


def _quotas(root: Path) -> Iterator[tuple[int, int]]:
    """Yields quotas with their periods, both in microseconds."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for folder in _and_above(root / CGROUP, path):
                yield from _read(folder, "cpu.max")
        elif "cpu" in controllers.split(","):
            mounts = (root / CGROUP / controllers, root / CGROUP / "cpu")
            for folder in _and_above(next(filter(Path.is_dir, mounts), mounts[-1]), path):
                yield from _read(folder, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _and_above(mount: Path, path: str) -> Iterator[Path]:
    """Yields the group's folder and those above it. In a container its path may name folders that only the host sees."""
    folder = mount / path.strip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _read(folder: Path, *names: str) -> Iterator[tuple[int, int]]:
    """Yields the quota and its period, from one file or from two. Nothing if there is none: "max", or a missing file."""
    with suppress(OSError, ValueError):
        quota, period = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
        yield int(quota), int(period)
