"""All metrics of one gateway, and their exposition. Each gateway has a registry of its own, so tests may run several."""

import socket
from collections.abc import Iterable, Iterator

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app

from gateway.metrics.access import AccessMetrics
from gateway.metrics.cluster import ClusterFamilies
from gateway.metrics.declaration import MetricDeclaration
from gateway.metrics.http import HTTPMetrics
from gateway.metrics.model import ModelFamilies, ModelMetrics
from gateway.metrics.process import ProcessMetrics
from gateway.metrics.server import MetricsServer
from gateway.metrics.snapshot import MetricFamily, snapshot
from gateway.metrics.upstream import UpstreamFamilies

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")  # Litestar adds it


class Metrics:
    """The metrics by subject; `of_model` has those of one model, with their labels looked up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.declaration = declare = MetricDeclaration(self.registry)
        self.http = HTTPMetrics(declare)
        self.access = AccessMetrics(declare)
        self.models = ModelFamilies(declare)
        self.upstreams = UpstreamFamilies(declare)
        self.clusters = ClusterFamilies(declare)
        self.process = ProcessMetrics(declare, self.registry)
        self.by_model: dict[str, ModelMetrics] = {}
        self.servers: list[MetricsServer] = []

    def of_model(self, name: str) -> ModelMetrics:
        """Returns the metrics of a configured model. Other names that clients send never reach this."""
        if name not in self.by_model:
            self.by_model[name] = ModelMetrics(
                name, self.models, upstreams=self.upstreams, clusters=self.clusters, process=self.process
            )
        return self.by_model[name]

    def samples(self, names: Iterable[str]) -> Iterator[tuple[str, dict[str, str], float]]:
        """Yields name, labels and value of the samples with these names, as /metrics shows them now. Unknown names are skipped."""
        for family in self.registry.restricted_registry(names).collect():
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def snapshot(self) -> list[MetricFamily]:
        """All metrics of this process as they are now."""
        return snapshot(self.registry, self.declaration.merges)

    def exposition(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self.registry)

    def serve(self, sockets: Iterable[socket.socket]) -> None:
        """Serves /metrics on these listening sockets, with one thread each, until `close`."""
        self.servers = [MetricsServer(listening, make_wsgi_app(self.registry)) for listening in sockets]

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
