"""Every metric, told once: its name, its labels, what it means. Durations are in seconds, sizes in bytes or tokens.

Labels are bounded whatever clients send: `model` is a configured model's name or "unknown", `route` a route's template or
"unmatched", `code` a code of errors.py. Each gateway has a registry of its own, so that tests may run many.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from gateway import __version__

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")  # Litestar adds it
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RATIOS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2, 4)
MODEL_INFO = ["model", "source", "runtime", "device", "precision", "dimensions", "fingerprint"]
LOOKUP_RESULTS = ("hit", "miss", "joined", "repeated")
REPLICA_STATES = ("STARTING", "UPDATING", "RECOVERING", "RUNNING", "STOPPING", "PENDING_MIGRATION")
STAGES = ("tokenize", "queue", "compute", "encode")


class Metrics:
    """All of a gateway's metrics, and the text Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        count = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        http, model = ["route", "method", "status"], ["model"]

        self.http_requests = count("gateway_http_requests_total", "Responses, by what was asked and how it ended.", http)
        self.http_seconds = histogram(
            "gateway_http_request_duration_seconds", "From first byte in to last byte out.", ["route"], buckets=SECONDS
        )
        self.http_in_flight = gauge("gateway_http_requests_in_flight", "Requests being answered.")
        self.requests = count(
            "gateway_requests_total",
            "Embedding requests; outcome is ok, client_gone or an error's code.",
            ["model", "outcome"],
        )
        self.stage_seconds = histogram(
            "gateway_stage_duration_seconds", "What a request's time went to.", ["model", "stage"], buckets=SECONDS
        )
        self.inputs = count("gateway_inputs_total", "Inputs embedded.", model)
        self.input_tokens_total = count("gateway_input_tokens_total", "Tokens embedded, as charged.", model)
        # design.md calls this gateway_input_tokens, which OpenMetrics cannot hold beside the counter of that name with _total.
        self.input_tokens = histogram("gateway_input_length_tokens", "Tokens an input.", model, buckets=TOKENS)
        self.batch_inputs = histogram("gateway_batch_inputs", "Texts a batch.", model, buckets=COUNTS)
        self.batch_tokens = histogram("gateway_batch_tokens", "Tokens a batch, padding included.", model, buckets=TOKENS)
        self.batch_padding = histogram(
            "gateway_batch_padding_ratio", "Padded tokens over real tokens of a batch.", model, buckets=RATIOS
        )
        self.max_batch_tokens = gauge(
            "gateway_max_batch_tokens", "Tokens a batch may hold; fewer than at first once a device ran out of memory.", model
        )
        self.queue_inputs = gauge("gateway_queue_inputs", "Texts waiting for a batch.", model)
        self.queue_tokens = gauge("gateway_queue_tokens", "Tokens waiting for a batch.", model)
        self.backlog_seconds = gauge(
            "gateway_backlog_seconds",
            "Waiting tokens over the measured tokens a second: the autoscaling signal.",
            model,
        )
        self.cache_lookups = count(
            "gateway_cache_lookups_total", "Inputs looked up; result is hit, miss, joined or repeated.", ["model", "result"]
        )
        self.cache_bytes = gauge("gateway_cache_bytes", "Memory held by cached vectors.")
        self.fidelity = gauge(
            "gateway_model_fidelity_cosine", "The worst cosine to sentence-transformers in float32 over the probe texts.", model
        )
        self.device_restarts = count("gateway_device_restarts_total", "Device threads that died and were replaced.", model)
        self.cluster_up = gauge("gateway_cluster_up", "1 while calls to the model's cluster make sense.", model)
        self.cluster_replicas = gauge(
            "gateway_cluster_replicas", "Replicas of the model on its cluster, by what Ray Serve says of them.", ["model", "state"]
        )
        self.cluster_outstanding = gauge("gateway_cluster_outstanding_calls", "Requests that wait for a replica's answer.", model)
        self.cluster_calls = count(
            "gateway_cluster_calls_total",
            "Calls to replicas, each try by itself; outcome is ok, lost, other_vectors, failed, cancelled or an error's code.",
            ["model", "outcome"],
        )
        self.rejections = count("gateway_rejections_total", "Requests refused for want of room or time.", ["reason"])
        self.auth_failures = count("gateway_auth_failures_total", "Requests without a valid key.", ["reason"])
        self.loop_lag = gauge("gateway_event_loop_lag_seconds", "How late the event loop was when last looked at.")
        self.model_info = gauge("gateway_model_info", "1 for each loaded model.", MODEL_INFO)
        gauge("gateway_build_info", "1 for the running version.", ["version"]).labels(__version__).set(1)
        self.models: dict[str, ModelMetrics] = {}
        # A look-up by labels costs 3 microseconds, a cached one none; their values are bounded, so are these.
        self.http_requests_of = cache(self.http_requests.labels)
        self.http_seconds_of = cache(self.http_seconds.labels)
        self.requests_of = cache(self.requests.labels)

    def answered(self, route: str, method: str, status: str, *, seconds: float) -> None:
        """A response went out."""
        self.http_requests_of(route, method, status).inc()
        self.http_seconds_of(route).observe(seconds)

    def ended(self, model: str, outcome: str) -> None:
        """An embedding request ended, well or not."""
        self.requests_of(model, outcome).inc()

    def exposition(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self.registry)

    def serve(self, port: int, host: str) -> None:
        """Serves /metrics on a port of its own, from a thread of its own, as long as the process lives."""
        start_http_server(port, addr=host, registry=self.registry)

    def of_model(self, name: str) -> "ModelMetrics":
        """The metrics of a configured model; clients' own names never come here."""
        if name not in self.models:
            self.models[name] = ModelMetrics(name, self)
        return self.models[name]


class ModelMetrics:
    """A model's own metrics, their labels looked up once."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self.name = name
        self.requests = metrics.requests
        self.stages = {stage: metrics.stage_seconds.labels(name, stage) for stage in STAGES}
        self.inputs = metrics.inputs.labels(name)
        self.input_tokens_total = metrics.input_tokens_total.labels(name)
        self.input_tokens = metrics.input_tokens.labels(name)
        self.batch_inputs = metrics.batch_inputs.labels(name)
        self.batch_tokens = metrics.batch_tokens.labels(name)
        self.batch_padding = metrics.batch_padding.labels(name)
        self.max_batch_tokens = metrics.max_batch_tokens.labels(name)
        self.queue_inputs = metrics.queue_inputs.labels(name)
        self.queue_tokens = metrics.queue_tokens.labels(name)
        self.backlog_seconds = metrics.backlog_seconds.labels(name)
        self.device_restarts = metrics.device_restarts.labels(name)
        self.lookups = {result: metrics.cache_lookups.labels(name, result) for result in LOOKUP_RESULTS}
        self.fidelity = metrics.fidelity
        self.info = metrics.model_info
        self.whole = metrics

    def loaded(self, *, fidelity: float | None, **labels: str) -> None:
        """The model can serve. `labels` are those of MODEL_INFO beside `model`; a fidelity nobody measured is not shown."""
        self.info.labels(model=self.name, **labels).set(1)
        if fidelity is not None:
            self.fidelity.labels(self.name).set(fidelity)

    def looked_up(self, **results: int) -> None:
        """So many inputs had each of LOOKUP_RESULTS."""
        for result, num_inputs in results.items():
            if num_inputs:
                self.lookups[result].inc(num_inputs)

    def embedded(self, token_counts: list[int], stages: dict[str, float]) -> None:
        """One request's inputs were embedded."""
        self.inputs.inc(len(token_counts))
        self.input_tokens_total.inc(sum(token_counts))
        for count in token_counts:
            self.input_tokens.observe(count)
        for stage, seconds in stages.items():
            self.stages[stage].observe(seconds)

    def ran(self, *, num_inputs: int, padded_tokens: int, real_tokens: int) -> None:
        """One batch ran on the device."""
        self.batch_inputs.observe(num_inputs)
        self.batch_tokens.observe(padded_tokens)
        self.batch_padding.observe(padded_tokens / real_tokens)

    def waiting(self, *, num_inputs: int, num_tokens: int, backlog_seconds: float) -> None:
        self.queue_inputs.set(num_inputs)
        self.queue_tokens.set(num_tokens)
        self.backlog_seconds.set(backlog_seconds)

    def cluster_seen(self, replicas: dict[str, int], *, is_up: bool) -> None:
        """How the model's cluster is; `replicas` counts those in each of REPLICA_STATES."""
        self.whole.cluster_up.labels(self.name).set(is_up)
        for state in REPLICA_STATES:
            self.whole.cluster_replicas.labels(self.name, state).set(replicas.get(state, 0))

    @contextmanager
    def cluster_call(self) -> Iterator[None]:
        """A request waits for its cluster."""
        outstanding = self.whole.cluster_outstanding.labels(self.name)
        with outstanding.track_inprogress():
            yield

    def cluster_called(self, outcome: str) -> None:
        """One try of a call ended."""
        self.whole.cluster_calls.labels(self.name, outcome).inc()
