"""Metrics of models: requests, inputs, batches, queues, the cache, groups. `model` is a configured model's name or "unknown"."""

from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol

from gateway.metrics.cluster import ClusterFamilies, ClusterMetrics
from gateway.metrics.declaration import COUNTS, RATIOS, SECONDS, TOKENS, MetricDeclaration
from gateway.metrics.process import ProcessMetrics
from gateway.metrics.upstream import UpstreamFamilies, UpstreamMetrics

MODEL_INFO = ["model", "source", "runtime", "device", "precision", "dimensions", "fingerprint"]
LOOKUP_RESULTS = ("hit", "miss", "joined", "repeated")


class Queue(Protocol):
    """What waits for batches."""

    @property
    def num_inputs(self) -> int: ...

    @property
    def num_tokens(self) -> int: ...

    @property
    def backlog_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """A queue that is elsewhere, as it was said to be."""

    num_inputs: int = 0
    num_tokens: int = 0
    backlog_seconds: float = 0.0


class ModelFamilies:
    """The metrics of all models, by model."""

    def __init__(self, declare: MetricDeclaration) -> None:
        model = ["model"]
        self.requests = declare.count(
            "gateway_requests_total",
            "Requests for vectors, scores or tokens; outcome is ok, client_gone or an error's code.",
            ["model", "outcome"],
        )
        self.stage_seconds = declare.histogram(
            "gateway_stage_duration_seconds", "What a request's time went to.", ["model", "stage"], buckets=SECONDS
        )
        self.inputs = declare.count("gateway_inputs_total", "Inputs embedded.", model)
        self.input_tokens_total = declare.count("gateway_input_tokens_total", "Tokens embedded, as charged.", model)
        # Not gateway_input_tokens: OpenMetrics cannot hold that beside the counter of that name with _total.
        self.input_tokens = declare.histogram("gateway_input_length_tokens", "Tokens an input.", model, buckets=TOKENS)
        self.batch_inputs = declare.histogram("gateway_batch_inputs", "Texts a batch.", model, buckets=COUNTS)
        self.batch_tokens = declare.histogram("gateway_batch_tokens", "Tokens a batch, padding included.", model, buckets=TOKENS)
        self.batch_padding = declare.histogram(
            "gateway_batch_padding_ratio", "Padded tokens over real tokens of a batch.", model, buckets=RATIOS
        )
        self.max_batch_tokens = declare.gauge(
            "gateway_max_batch_tokens",
            "Tokens a batch may hold; fewer than at first once a device ran out of memory.",
            model,
            merge="engine",
        )
        self.queue_inputs = declare.gauge("gateway_queue_inputs", "Texts waiting for a batch.", model, merge="engine")
        self.queue_tokens = declare.gauge("gateway_queue_tokens", "Tokens waiting for a batch.", model, merge="engine")
        self.backlog_seconds = declare.gauge(
            "gateway_backlog_seconds",
            "Waiting tokens over the measured tokens a second: the autoscaling signal.",
            model,
            merge="engine",
        )
        self.cache_lookups = declare.count(
            "gateway_cache_lookups_total", "Inputs looked up; result is hit, miss, joined or repeated.", ["model", "result"]
        )
        self.cache_bytes = declare.gauge("gateway_cache_bytes", "Memory held by cached vectors.", merge="engine")
        self.fidelity = declare.gauge(
            "gateway_model_fidelity_cosine",
            "The worst cosine to sentence-transformers in float32 over the probe texts; of a reranker 1 less the worst difference"
            " of a score.",
            model,
            merge="engine",
        )
        self.memory_bytes = declare.gauge(
            "gateway_model_memory_bytes",
            "Memory of a model on this machine while it is loaded, as its files say; 0 once it is unloaded.",
            model,
            merge="engine",
        )
        self.memory_budget_bytes = declare.gauge(
            "gateway_memory_budget_bytes", "engine.memory_budget; 0 is no bound.", merge="engine"
        )
        self.loads = declare.count(
            "gateway_model_loads_total", "Models loaded; reason is start, request or retry.", ["model", "reason"]
        )
        self.unloads = declare.count(
            "gateway_model_unloads_total",
            "Models taken out of memory; reason is idle, budget, or refused for a model that was loaded in vain.",
            ["model", "reason"],
        )
        self.device_restarts = declare.count("gateway_device_restarts_total", "Device threads that died and were replaced.", model)
        self.group_requests = declare.count(
            "gateway_group_requests_total",
            "Requests a member of a group was asked; outcome is ok or an error's code.",
            ["model", "member", "outcome"],
        )
        self.group_fallbacks = declare.count(
            "gateway_group_fallbacks_total", "Requests that another member than a group's first one served.", ["model"]
        )
        self.model_info = declare.gauge("gateway_model_info", "1 for each loaded model.", MODEL_INFO, merge="engine")
        self.requests_of = cache(self.requests.labels)  # bounded, as the label values are

    def record_outcome(self, model: str, outcome: str) -> None:
        """Counts an embedding request that ended, successfully or not."""
        self.requests_of(model, outcome).inc()


class ModelMetrics:
    """One model's metrics, with their labels looked up once."""

    def __init__(
        self, name: str, families: ModelFamilies, *, upstreams: UpstreamFamilies, clusters: ClusterFamilies, process: ProcessMetrics
    ) -> None:
        self.name = name
        self.upstreams = upstreams
        self.clusters = clusters
        self.process = process
        # Made at a stage's first use: each stage adds twenty lines to a scrape.
        self.stage_seconds_of = cache(partial(families.stage_seconds.labels, name))
        self.inputs = families.inputs.labels(name)
        self.input_tokens_total = families.input_tokens_total.labels(name)
        self.input_tokens = families.input_tokens.labels(name)
        self.batch_inputs = families.batch_inputs.labels(name)
        self.batch_tokens = families.batch_tokens.labels(name)
        self.batch_padding = families.batch_padding.labels(name)
        self.max_batch_tokens = families.max_batch_tokens.labels(name)
        # The queue changes twice a request: a scrape asks for it, which costs requests nothing.
        self.queue: Queue = QueueFigures()
        families.queue_inputs.labels(name).set_function(lambda: self.queue.num_inputs)
        families.queue_tokens.labels(name).set_function(lambda: self.queue.num_tokens)
        families.backlog_seconds.labels(name).set_function(lambda: self.queue.backlog_seconds)
        self.device_restarts = families.device_restarts.labels(name)
        self.lookups = {result: families.cache_lookups.labels(name, result) for result in LOOKUP_RESULTS}
        self.fidelity = families.fidelity
        self.info = families.model_info
        self.memory_bytes = families.memory_bytes
        self.loads, self.unloads = families.loads, families.unloads
        self.group_requests = families.group_requests
        self.group_fallbacks = families.group_fallbacks
        self.shown: tuple[str, ...] | None = None  # the labels of this model's row in `info`

    def of_upstream(self) -> UpstreamMetrics:
        """Returns the metrics of the model's upstream, which has the model's name."""
        return UpstreamMetrics(self.name, self.upstreams)

    def of_cluster(self) -> ClusterMetrics:
        """Returns the metrics of the model on its cluster."""
        return ClusterMetrics(self.name, self.clusters)

    def record_load(self, *, fidelity: float | None, **labels: str) -> None:
        """Shows a model that can serve. `labels` are those of MODEL_INFO except `model`. A fidelity of None was not measured."""
        self.forget()
        self.shown = (self.name, *(labels[name] for name in MODEL_INFO[1:]))
        self.info.labels(*self.shown).set(1)
        if fidelity is not None:
            self.fidelity.labels(self.name).set(fidelity)

    def record_memory(self, num_bytes: int, reason: str) -> None:
        """Counts a load, and shows the memory of a model on this machine."""
        self.loads.labels(self.name, reason).inc()
        if num_bytes:
            self.memory_bytes.labels(self.name).set(num_bytes)

    def record_unload(self, reason: str) -> None:
        """Shows that a model is not in memory any more."""
        self.unloads.labels(self.name, reason).inc()
        self.memory_bytes.labels(self.name).set(0)

    def forget(self) -> None:
        """Removes the description of the loaded model. Its counters are kept."""
        if self.shown is not None:
            self.info.remove(*self.shown)
            self.shown = None
        self.fidelity.remove_by_labels({"model": self.name})
        self.memory_bytes.remove_by_labels({"model": self.name})

    def record_member(self, member: str, outcome: str) -> None:
        """Counts a request to a member of this group. `outcome` is "ok" or an error's code."""
        self.group_requests.labels(self.name, member, outcome).inc()

    def record_member_served(self, member: str, *, is_first: bool) -> None:
        """Counts a request that a member answered. If it is not the first member, the operator pays for a fallback, counted too."""
        self.record_member(member, "ok")
        self.group_fallbacks.labels(self.name).inc(not is_first)

    def record_restart(self, task: str) -> None:
        """Counts background work of this kind that died and was restarted."""
        self.process.background_restarts.labels(task).inc()

    def record_lookups(self, **results: int) -> None:
        """Counts inputs by the result of their cache look-up, one of LOOKUP_RESULTS."""
        for result, num_inputs in results.items():
            if num_inputs:
                self.lookups[result].inc(num_inputs)

    def record_embedding(self, token_counts: list[int], stages: dict[str, float]) -> None:
        """Counts the embedded inputs of one request."""
        self.inputs.inc(len(token_counts))
        self.input_tokens_total.inc(sum(token_counts))
        self.input_tokens.observe_all(token_counts)
        for stage, seconds in stages.items():
            self.stage_seconds_of(stage).observe(seconds)

    def record_batch(self, *, num_inputs: int, padded_tokens: int, real_tokens: int) -> None:
        """Counts a batch that ran on the device."""
        self.batch_inputs.observe(num_inputs)
        self.batch_tokens.observe(padded_tokens)
        self.batch_padding.observe(padded_tokens / real_tokens)

    def watch_queue(self, queue: "Queue") -> None:
        """Shows this queue from now on, as it is at each scrape."""
        self.queue = queue
