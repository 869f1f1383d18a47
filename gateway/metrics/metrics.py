"""All metrics of one gateway, and their exposition. Each gateway has a registry of its own, so tests may run several."""

import asyncio
import socket
from collections.abc import Collection, Iterable, Iterator

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app

from gateway.metrics.access import AccessMetrics
from gateway.metrics.all_processes import Gather, GatheredRegistry, GivenFamilies
from gateway.metrics.batches import BatchMetrics
from gateway.metrics.cluster import ClusterFamilies
from gateway.metrics.declaration import MetricDeclaration
from gateway.metrics.files import FileMetrics
from gateway.metrics.http import HTTPMetrics
from gateway.metrics.model import ModelFamilies, ModelMetrics
from gateway.metrics.process import ProcessMetrics
from gateway.metrics.server import MetricsServer
from gateway.metrics.snapshot import MetricFamily, snapshot
from gateway.metrics.upstream import UpstreamFamilies

Reading = tuple[str, dict[str, str], float]  # a sample's name, labels and value
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")  # Litestar adds it


class Metrics:
    """The metrics by subject; `of_model` has those of one model, with their labels looked up.

    `gather` sums them over all processes of the gateway; None if this is the only one.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.declaration = declare = MetricDeclaration(self.registry)
        self.http = HTTPMetrics(declare)
        self.access = AccessMetrics(declare)
        self.files = FileMetrics(declare)
        self.batches = BatchMetrics(declare)
        self.models = ModelFamilies(declare)
        self.upstreams = UpstreamFamilies(declare)
        self.clusters = ClusterFamilies(declare)
        self.process = ProcessMetrics(declare, self.registry)
        self.by_model: dict[str, ModelMetrics] = {}
        self.servers: list[MetricsServer] = []
        self.gather: Gather | None = None

    def of_model(self, name: str) -> ModelMetrics:
        """Returns the metrics of a configured model. Other names that clients send never reach this."""
        if name not in self.by_model:
            self.by_model[name] = ModelMetrics(
                name, self.models, upstreams=self.upstreams, clusters=self.clusters, process=self.process
            )
        return self.by_model[name]

    def samples(self, names: Iterable[str]) -> Iterator[Reading]:
        """Yields name, labels and value of the samples with these names, as /metrics shows them now. Unknown names are skipped."""
        for family in self.registry.restricted_registry(names).collect():
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def snapshot(self) -> list[MetricFamily]:
        """All metrics of this process as they are now."""
        return snapshot(self.registry, self.declaration.merges)

    async def samples_of_all(self, names: Collection[str]) -> Iterable[Reading]:
        """As `samples`, but summed over all processes of the gateway. Raises TimeoutError if their sum cannot be had."""
        if self.gather is None:
            return self.samples(names)
        return [sample for family in await self.gather() for sample in family.samples if sample[0] in names]

    def exposition(self) -> bytes:
        """The text of /metrics, of this process."""
        return generate_latest(self.registry)

    async def exposition_of_all(self) -> bytes:
        """The text of /metrics, rendered in a thread: with many models it takes 20 ms, which would delay requests.

        Raises TimeoutError if the sum over all processes cannot be had.
        """
        if self.gather is None:
            return await asyncio.to_thread(self.exposition)
        return await asyncio.to_thread(generate_latest, GivenFamilies(await self.gather()))

    def serve(self, sockets: Iterable[socket.socket]) -> None:
        """Serves /metrics on these listening sockets, with one thread each, until `close`. Called on the event loop."""
        registry = self.registry if self.gather is None else GatheredRegistry(self.gather, asyncio.get_running_loop())
        self.servers = [MetricsServer(listening, make_wsgi_app(registry)) for listening in sockets]

    def is_served(self) -> bool:
        """Whether every thread that serves /metrics runs; True if there is none."""
        return all(server.background.is_running for server in self.servers)

    def close(self) -> None:
        """Stops serving. Blocks for half a second at most."""
        for server in self.servers:
            server.background.close(0)  # from now on its end is not a death
            server.shutdown()
            server.server_close()
        self.servers = []
