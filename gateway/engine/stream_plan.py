"""How many streams a compiled model has on the CPU, and how many threads: by the CPUs of this process and their NUMA nodes.

OpenVINO places streams itself: it counts the CPUs node after node, gives each stream the next few, binds its threads to them, and
makes its memory there, with a copy of the weights for each socket (seen with 2026.4 on made-up nodes of 8+8, 6+6, 5+3 and 31+32
CPUs). It divides the threads evenly, so a stream of four on nodes of six would span both. The sizes here are such that none does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.config import EngineSettings
from gateway.cpus import CPUs

CPUS_PER_STREAM = 4  # on large machines; on two cores, two streams were best
MIN_USED = 0.9  # of the CPUs: below it a stream may rather span two nodes than leave so many idle


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """`threads` are those of all streams together; 0 is as many as the runtime sees."""

    streams: int
    threads: int


def plan_streams(engine: EngineSettings, cpus: CPUs) -> StreamPlan:
    """The streams that the settings ask for, or else one for four CPUs, and at least two.

    On several nodes each stays on one, unless the settings' number of streams would leave more than a tenth of the CPUs idle.
    """
    usable = engine.threads or cpus.num_usable
    wanted = engine.streams or min(usable, max(2, usable // CPUS_PER_STREAM))
    nodes = [len(node) for node in cpus.nodes]
    if len(nodes) == 1 or usable < len(cpus.visible):  # threads that use a part of the CPUs are not bound to any
        return StreamPlan(wanted, num_threads(engine, cpus))
    width = _widest(nodes, engine.streams) if engine.streams else _width(nodes, usable // wanted)
    streams = engine.streams or _num_streams(nodes, width)
    threads = streams * width
    is_worth_it = MIN_USED * len(cpus.visible) <= threads < len(cpus.visible)
    return StreamPlan(streams, threads if is_worth_it else num_threads(engine, cpus))


def num_threads(engine: EngineSettings, cpus: CPUs) -> int:
    """CPU threads to compute with. 0, all that the runtime sees, unless there is a quota: the runtimes do not look for one."""
    return engine.threads or (cpus.num_usable if cpus.quota else 0)


def _widest(nodes: Sequence[int], streams: int) -> int:
    """The most threads a stream may have, so that so many of them fit; 0 if they do not fit at all."""
    return next((width for width in range(max(nodes), 0, -1) if _num_streams(nodes, width) >= streams), 0)


def _width(nodes: Sequence[int], widest: int) -> int:
    """The most threads a stream may have, at most `widest`, so that the streams of all nodes leave few CPUs idle."""
    widths = range(widest, 0, -1)
    return next(width for width in widths if width * _num_streams(nodes, width) >= MIN_USED * sum(nodes))


def _num_streams(nodes: Sequence[int], width: int) -> int:
    return sum(node // width for node in nodes)
