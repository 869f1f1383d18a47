"""Constructors of counters, gauges and histograms; the buckets. Durations are in seconds, sizes in bytes or tokens."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import partial

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge

from gateway.metrics.snapshot import Merge

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RATIOS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2, 4)


class _Counter(prometheus_client.Counter):
    """Counts without the library's checks of labels and exemplars, which take as long as the count."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002 - the library's signature
        if amount < 0:
            raise ValueError(f"a counter cannot count {amount}")
        self._value.inc(amount)


class Histogram(prometheus_client.Histogram):
    """Finds a value's bucket by bisection, and counts many values at once."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:  # noqa: ARG002 - the library's signature
        self._sum.inc(amount)
        self._buckets[bisect_left(self._upper_bounds, amount)].inc(1)

    def observe_all(self, amounts: Sequence[float]) -> None:
        if len(amounts) == 1:
            self.observe(amounts[0])
            return
        self._sum.inc(sum(amounts))
        bounds = self._upper_bounds
        for place, number in Counter([bisect_left(bounds, amount) for amount in amounts]).items():
            self._buckets[place].inc(number)


class MetricDeclaration:
    """Declares counters, gauges and histograms in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.count = partial(_Counter, registry=registry)
        self.histogram = partial(Histogram, registry=registry)
        self.merges: dict[str, Merge] = {}

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = (), *, merge: Merge = "sum") -> Gauge:
        """A gauge. `merge` says what it is for several processes: their sum, maximum or minimum, or the engine's alone."""
        self.merges[name] = merge
        return Gauge(name, documentation, labels, registry=self.registry)
