"""The processes of one gateway, as /proc shows them: what each is, its CPU time and its memory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
CHILD_NAME = "gateway-"  # before the role, see gateway/processes/child.py


@dataclass(frozen=True)
class ProcessUse:
    """`cpu_seconds` since its start. `pss_bytes` has a page that several processes share in equal parts."""

    cpu_seconds: float
    rss_bytes: int
    pss_bytes: int


def roles(pid: int) -> dict[str, int]:
    """The pids of a gateway's processes by role: `gateway` if it is one, else `supervisor`, `engine`, `front-0` and so on."""
    children = {_comm(child).removeprefix(CHILD_NAME): child for child in _children(pid) if _comm(child).startswith(CHILD_NAME)}
    return {"supervisor": pid, **dict(sorted(children.items()))} if children else {"gateway": pid}


def use_of(pid: int) -> ProcessUse:
    memory = (PROC / str(pid) / "smaps_rollup").read_text().split("\n")
    sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in memory if line.startswith(("Rss:", "Pss:"))}
    return ProcessUse(cpu_seconds(pid), sizes["Rss"], sizes["Pss"])


def cpu_seconds(pid: int) -> float:
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _comm(pid: int) -> str:
    return (PROC / str(pid) / "comm").read_text().strip()


def _children(pid: int) -> Iterator[int]:
    for task in (PROC / str(pid) / "task").iterdir():
        yield from map(int, (task / "children").read_text().split())
