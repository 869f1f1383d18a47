"""The supervisor's sums of all processes' metrics, made when the engine wants them."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.metrics import Metrics
from gateway.metrics.snapshot import MetricFamily
from gateway.metrics.sum import MetricSum
from gateway.processes import control
from gateway.processes.child_process import ChildProcess

WAIT_SECONDS = 1.0  # for a process that does not send its samples: its last ones count then


@dataclass(frozen=True, slots=True)
class WantedSum:
    """One question of the engine. `missing` are the processes that have not answered."""

    number: int
    deadline: float
    missing: set[str]


class Sums:
    """The snapshots of all processes, the supervisor's among them."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.sum = MetricSum()
        self.wanted: list[WantedSum] = []

    def want(self, number: int, children: Iterable[ChildProcess], now: float) -> None:
        """Begins a sum: asks each of these children for its samples."""
        asked = [child for child in children if child.socket is not None]
        self.wanted.append(WantedSum(number, now + WAIT_SECONDS, {child.name for child in asked}))
        for child in asked:
            if not child.is_asked:
                child.is_asked = True
                child.send(control.SamplesWanted())

    def put(self, process: str, families: list[MetricFamily]) -> None:
        """Takes the samples of a process."""
        self.sum.put(process, families)
        self.do_without(process)

    def end(self, child: ChildProcess) -> None:
        """Keeps the counts of a process that has ended."""
        self.sum.end(child.name)
        self.do_without(child.name)

    def do_without(self, process: str) -> None:
        for wanted in self.wanted:
            wanted.missing.discard(process)

    def finished(self, now: float) -> list[int]:
        """Takes the numbers of the sums that wait for nobody any more."""
        done = [wanted for wanted in self.wanted if not wanted.missing or now >= wanted.deadline]
        self.wanted = [wanted for wanted in self.wanted if wanted not in done]
        return [wanted.number for wanted in done]

    def total(self) -> list[MetricFamily]:
        """Each metric once, summed over all processes."""
        self.sum.put("supervisor", self.metrics.snapshot())
        return self.sum.total()

    @property
    def deadline(self) -> float | None:
        return min((wanted.deadline for wanted in self.wanted), default=None)
