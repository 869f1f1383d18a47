"""The metrics of all processes of a gateway, in the shape in which prometheus_client renders a registry's."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from gateway.background import await_from_thread
from gateway.metrics.snapshot import MetricFamily

THREAD_SECONDS = 10.0  # for a scrape on the metrics' own port

Gather = Callable[[], Coroutine[Any, Any, list[MetricFamily]]]


class GivenFamilies(Collector):
    """A registry of values that were collected elsewhere."""

    def __init__(self, families: Iterable[MetricFamily]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        for family in self.families:
            metric = Metric(family.name, family.help, family.kind)
            metric.samples = [Sample(name, labels, value) for name, labels, value in family.samples]
            yield metric

    def restricted_registry(self, names: Iterable[str]) -> "GivenFamilies":
        """Only the samples with these names (`/metrics?name[]=…`)."""
        wanted = frozenset(names)
        kept = [(family, [sample for sample in family.samples if sample[0] in wanted]) for family in self.families]
        return GivenFamilies(
            MetricFamily(family.name, family.kind, family.help, family.merge, samples) for family, samples in kept if samples
        )


class GatheredRegistry(Collector):
    """A registry whose values are gathered on the event loop, for a thread that waits for them."""

    def __init__(self, gather: Gather, loop: asyncio.AbstractEventLoop) -> None:
        self.gather = gather
        self.loop = loop

    def gathered(self) -> GivenFamilies:
        """Raises TimeoutError if they cannot be had."""
        return GivenFamilies(await_from_thread(self.gather(), self.loop, timeout_seconds=THREAD_SECONDS))

    def collect(self) -> Iterable[Metric]:
        return self.gathered().collect()

    def restricted_registry(self, names: Iterable[str]) -> GivenFamilies:
        return self.gathered().restricted_registry(names)
