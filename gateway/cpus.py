"""How many CPUs this process may use, by its affinity and the quota of its control group, and the NUMA nodes that they are on.

A container limited to 4 CPUs of a 64-core machine sees 64 cores in its affinity. If it starts a thread for each, the kernel stops
all of them together for the rest of every period once they have used the quota.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path

ROOT = Path("/")
CGROUP = "sys/fs/cgroup"
NODES = "sys/devices/system/node"


@dataclass(frozen=True, slots=True)
class CPUs:
    """`visible` are those of the affinity, which a cpuset narrows; `quota` is None without one.

    `nodes` are the visible CPUs of each NUMA node that has some, in the order of their numbers.
    """

    visible: frozenset[int]
    quota: int | None
    nodes: tuple[frozenset[int], ...]

    @property
    def num_usable(self) -> int:
        return min(len(self.visible), self.quota or len(self.visible))


def read_cpus(root: Path = ROOT, *, visible: frozenset[int] | None = None) -> CPUs:
    """The CPUs of this process. `root` is where /proc and /sys are, and `visible` the affinity, for tests."""
    seen = _visible_cpus() if visible is None else visible
    return CPUs(seen, quota_cpus(root), _nodes(root, seen))


def cpu_flags(root: Path = ROOT) -> frozenset[str]:
    """The instructions that the CPU has, by the names that Linux lists in /proc/cpuinfo. Empty where it lists none."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", (root / "proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return frozenset(found[1].split() if found else ())


def num_cpus(root: Path = ROOT) -> int:
    """The number of CPUs to use, at least 1."""
    return min(num_visible(), quota_cpus(root) or num_visible())


def num_visible() -> int:
    return len(_visible_cpus())


def _visible_cpus() -> frozenset[int]:
    """The CPUs of the process's affinity."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


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


def _nodes(root: Path, visible: frozenset[int]) -> tuple[frozenset[int], ...]:
    """One node of all if the files do not tell each CPU's. Source: the kernel's Documentation/ABI/stable/sysfs-devices-node."""
    try:
        files = sorted((root / NODES).glob("node[0-9]*/cpulist"), key=lambda file: int(file.parent.name.removeprefix("node")))
        nodes = [_cpus_of(file.read_text(encoding="ascii")) & visible for file in files]
    except (OSError, ValueError):
        return (visible,)
    found = tuple(node for node in nodes if node)  # a node may have memory alone
    return found if sum(map(len, found)) == len(visible) else (visible,)


def _cpus_of(cpulist: str) -> frozenset[int]:
    """The CPUs of a list as "0-3,8". Raises ValueError."""
    ranges = [part.partition("-") for part in cpulist.strip().split(",") if part]
    return frozenset(cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1))
