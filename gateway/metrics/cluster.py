"""Metrics of models on a Ray cluster. `model` is a configured model's name, `state` one of REPLICA_STATES."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.metrics.declaration import MetricDeclaration

REPLICA_STATES = ("STARTING", "UPDATING", "RECOVERING", "RUNNING", "STOPPING", "PENDING_MIGRATION")


class ClusterFamilies:
    """The metrics of all models on clusters, by model."""

    def __init__(self, declare: MetricDeclaration) -> None:
        model = ["model"]
        self.up = declare.gauge("gateway_cluster_up", "1 while calls to the model's cluster make sense.", model, merge="engine")
        self.replicas = declare.gauge(
            "gateway_cluster_replicas",
            "Replicas of the model on its cluster, by what Ray Serve says of them.",
            ["model", "state"],
            merge="engine",
        )
        self.outstanding = declare.gauge(
            "gateway_cluster_outstanding_calls", "Requests that wait for a replica's answer.", model, merge="engine"
        )
        self.calls = declare.count(
            "gateway_cluster_calls_total",
            "Calls to replicas, each try by itself; outcome is ok, lost, other_vectors, failed, cancelled or an error's code.",
            ["model", "outcome"],
        )


class ClusterMetrics:
    """The metrics of one model."""

    def __init__(self, name: str, families: ClusterFamilies) -> None:
        self.name = name
        self.families = families

    def set_status(self, replicas: dict[str, int], *, is_up: bool) -> None:
        """Sets the state of the model's cluster; `replicas` counts the replicas in each of REPLICA_STATES."""
        self.families.up.labels(self.name).set(is_up)
        for state in REPLICA_STATES:
            self.families.replicas.labels(self.name, state).set(replicas.get(state, 0))

    @contextmanager
    def call(self) -> Iterator[None]:
        """Counts a request as outstanding while the block runs."""
        outstanding = self.families.outstanding.labels(self.name)
        with outstanding.track_inprogress():
            yield

    def record_call(self, outcome: str) -> None:
        """Counts one try of a call that ended."""
        self.families.calls.labels(self.name, outcome).inc()
