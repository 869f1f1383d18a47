"""The sum of several processes' metrics. Counters and histograms never fall: what a process counted before it ended is kept."""

from collections.abc import Iterable
from math import isfinite

from gateway.metrics.snapshot import MetricFamily

Labels = tuple[tuple[str, str], ...]
Values = dict[tuple[str, Labels], float]

ENGINE = "engine"
STEP = (
    2.0**-20
)  # of counts, some 1e-6: multiples of it add without rounding up to 2**33 (seconds: 272 years), so in any order alike


class MetricSum:
    """The last snapshot of each process, and the counts of those that have ended. The process "engine" is the engine."""

    def __init__(self) -> None:
        self.latest: dict[str, list[MetricFamily]] = {}
        self.ended: list[MetricFamily] = []

    def put(self, process: str, families: list[MetricFamily]) -> None:
        """Replaces the last snapshot of a process."""
        self.latest[process] = families

    def end(self, process: str) -> None:
        """The process has ended: keeps its counts, and forgets its gauges."""
        counted = [family for family in self.latest.pop(process, []) if family.kind != "gauge"]
        self.ended = _merge([(ENGINE, self.ended), (process, counted)])

    def total(self) -> list[MetricFamily]:
        """Each family once, in the order of the first process that has it."""
        return _merge([*self.latest.items(), (ENGINE, self.ended)])


def _merge(processes: Iterable[tuple[str, list[MetricFamily]]]) -> list[MetricFamily]:
    heads: dict[str, MetricFamily] = {}
    values: dict[str, Values] = {}
    for process, families in processes:
        for family in families:
            heads.setdefault(family.name, family)
            found = values.setdefault(family.name, {})
            if family.merge != "engine" or process == ENGINE:
                _add(found, family)
    return [
        MetricFamily(
            name, head.kind, head.help, head.merge,
            [(sample, dict(labels), value) for (sample, labels), value in values[name].items()],
        )
        for name, head in heads.items()
    ]  # fmt: skip


def _add(values: Values, family: MetricFamily) -> None:
    is_count = family.kind != "gauge"
    for name, labels, shown in family.samples:
        value = _in_steps(shown) if is_count else shown
        key = name, tuple(labels.items())  # the order of declaration, the same in each process
        before = values.get(key)
        if before is None:
            values[key] = value
        elif family.merge == "max":
            values[key] = max(before, value)
        elif family.merge == "min":
            values[key] = min(before, value)
        else:
            values[key] = before + value


def _in_steps(value: float) -> float:
    """A sum that rounding moves by one bit less is a restart for Prometheus, which then counts all of it again."""
    return round(value / STEP) * STEP if isfinite(value) else value
