"""What was measured of the road: costs of loads by process, and memory."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cost:
    """Of one load, by one gateway. `cpu_us` and `per_second` are for a text.

    `cpu_us` is by role, of all fronts together; `client` is wrk. `busiest_front` is the share of the fronts' CPU time that the
    busiest had: connections may spread unevenly.
    """

    case: str
    num_fronts: int
    per_second: float
    p50_ms: float
    cpu_us: dict[str, float]
    busiest_front: float = 1.0

    @property
    def gateway_us(self) -> float:
        return sum(spent for role, spent in self.cpu_us.items() if role != "client")

    def of(self, role: str) -> float:
        return self.cpu_us.get(role, 0.0)


@dataclass(frozen=True)
class Memory:
    """Of one process, after the load. `pss_mb` counts a page that several processes share in equal parts."""

    num_fronts: int
    role: str
    rss_mb: float
    pss_mb: float


@dataclass(frozen=True)
class StepCost:
    """CPU microseconds of a text at one step, in one process."""

    role: str
    step: str
    cpu_us: float


@dataclass(frozen=True)
class Steps:
    """Of one load: the costs of its steps in each process."""

    case: str
    num_fronts: int
    costs: list[StepCost]

    def of(self, role: str, step: str) -> float:
        return sum(cost.cpu_us for cost in self.costs if (cost.role, cost.step) == (role, step))


@dataclass(frozen=True)
class Road:
    costs: list[Cost]
    memory: list[Memory]
    steps: list[Steps] = field(default_factory=list)

    def has(self, *cases: str) -> bool:
        """Whether these loads were run, in one process and by one and two fronts."""
        return {(case, num_fronts) for case in cases for num_fronts in (0, 1, 2)} <= {
            (cost.case, cost.num_fronts) for cost in self.costs
        }

    def cost(self, case: str, num_fronts: int) -> Cost:
        """The medians of the rounds."""
        found = [cost for cost in self.costs if (cost.case, cost.num_fronts) == (case, num_fronts)]
        return Cost(
            case, num_fronts, _median(found, lambda cost: cost.per_second), _median(found, lambda cost: cost.p50_ms),
            {role: statistics.median(cost.cpu_us[role] for cost in found) for role in found[0].cpu_us},
            _median(found, lambda cost: cost.busiest_front),
        )  # fmt: skip


def _median(costs: list[Cost], of: Callable[[Cost], float]) -> float:
    return statistics.median(map(of, costs))
