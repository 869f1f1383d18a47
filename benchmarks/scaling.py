"""How many requests a gateway can do on a machine, from what one costs each of its processes.

A process runs Python on one core at a time. So a front, or the engine, does at most as many requests as fit into a second of one
core, and all together no more than the machine has cores for: the least of these is the limit. It is one from above, for a device
that costs nothing and connections that spread evenly over the fronts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RequestCost:
    """CPU microseconds of one request. `front_us` is 0 in one process. `client_us` is the load program's, on the same cores."""

    engine_us: float
    front_us: float = 0.0
    client_us: float = 0.0


@dataclass(frozen=True)
class Limit:
    per_second: float
    saturated: str


def limit_of(cost: RequestCost, *, cores: int, num_fronts: int) -> Limit:
    """The most requests a second, and what has no time left then."""
    limits = [
        Limit(1e6 / cost.engine_us, "the engine" if cost.front_us else "the process"),
        Limit(1e6 * cores / (cost.engine_us + cost.front_us + cost.client_us), "all cores"),
    ]
    if cost.front_us:
        limits.append(Limit(1e6 * num_fronts / cost.front_us, "the fronts"))
    return min(limits, key=lambda limit: limit.per_second)
