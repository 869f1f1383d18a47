"""Every metric, told once: its name, its labels, what it means. Durations are in seconds, sizes in bytes or tokens.

Labels are bounded whatever clients send: `model` is a configured model's name or "unknown", `route` a route's template or
"unmatched", `code` a code of errors.py. Each gateway has a registry of its own, so that tests may run many.
"""

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from wsgiref.simple_server import WSGIRequestHandler

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from gateway import __version__
from gateway.background import BackgroundThread

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")  # Litestar adds it
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RATIOS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2, 4)
MODEL_INFO = ["model", "source", "runtime", "device", "precision", "dimensions", "fingerprint"]
LOOKUP_RESULTS = ("hit", "miss", "joined", "repeated")
MAX_KEY_LABELS = 1001  # a thousand keys, and "other"
OTHER_KEYS = "other"
REPLICA_STATES = ("STARTING", "UPDATING", "RECOVERING", "RUNNING", "STOPPING", "PENDING_MIGRATION")


class Metrics:
    """All of a gateway's metrics, and the text Prometheus reads."""

    def __init__(self) -> None:  # noqa: PLR0915 - a statement a metric
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
        # Not gateway_input_tokens: OpenMetrics cannot hold that beside the counter of that name with _total.
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
        upstream = ["upstream"]
        self.upstream_requests = count(
            "gateway_upstream_requests_total",
            "Requests to other servers, retries included, by how they ended.",
            [*upstream, "outcome"],
        )
        self.upstream_retries = count(
            "gateway_upstream_retries_total", "Requests to other servers that were sent once more.", upstream
        )
        self.upstream_up = gauge(
            "gateway_upstream_up", "1 while any of its addresses takes requests, 0 while all are left alone.", upstream
        )
        self.upstream_breaker = gauge(
            "gateway_upstream_breaker_open", "1 while this address is left alone after failures.", [*upstream, "address"]
        )
        self.upstream_address_used = gauge(
            "gateway_upstream_address_used",
            "1 while this address is proven to give the row's vectors, 0 while it is not used.",
            [*upstream, "address"],
        )
        self.upstream_swaps = count(
            "gateway_upstream_swaps_total",
            "Times that other vectors came from the server than before: its model was changed.",
            upstream,
        )
        self.upstream_probes = count(
            "gateway_upstream_probes_total", "Probes of which vectors a server gives, by what was found.", [*upstream, "outcome"]
        )
        self.upstream_probe_tokens = count(
            "gateway_upstream_probe_tokens_total", "Tokens of all probes, which the server may charge for.", upstream
        )
        self.upstream_learned_limit = gauge(
            "gateway_upstream_learned_limit",
            "How much one request may hold, as this server's refusals taught: of the row's `setting`; 0 where none did.",
            [*upstream, "setting"],
        )
        self.upstream_extra_requests = count(
            "gateway_upstream_extra_requests_total",
            "Requests to other servers that were sent to find out why one was refused.",
            upstream,
        )
        self.upstream_outstanding = gauge("gateway_upstream_outstanding_requests", "Requests it has not answered yet.", upstream)
        self.upstream_oldest = gauge(
            "gateway_upstream_oldest_request_seconds",
            "How long the oldest request it has not answered yet has been there.",
            upstream,
        )
        self.estimated_tokens = count(
            "gateway_estimated_tokens_total", "Of the tokens embedded, those an upstream did not count: they are estimated.", model
        )
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
        self.connections_cut = count(
            "gateway_connections_cut_total", "Connections ended for what their clients did, or for want of room.", ["reason"]
        )
        for reason in ("server_overloaded", "address_limit", "made_room"):  # so that a rate is seen from the first one on
            self.connections_cut.labels(reason)
        self.log_lines_left_out = count(
            "gateway_log_lines_left_out_total", "Lines of the log that strangers caused and that were only counted.", ["reason"]
        )
        self.open_connections = gauge("gateway_open_connections", "Open connections, by what they do.", ["state"])
        self.max_connections = gauge("gateway_max_connections", "Connections that may be open at once.")
        self.limited = count("gateway_limited_total", "Requests refused for a key's limit.", ["limit"])
        self.limiter_failures = count(
            "gateway_limiter_failures_total", "Requests whose limits could not be asked for, by what became of them.", ["decision"]
        )
        self.limiter_up = gauge(
            "gateway_limiter_up", "1 while the server of limits.redis_url answers, or none is configured; 0 while it does not."
        )
        self.limiter_up.set(1)
        self.key_tokens = count(
            "gateway_key_tokens_total", "Tokens a key used; of the first 1,000 keys, the rest is 'other'.", ["key"]
        )
        self.key_requests = count("gateway_key_requests_total", "Embedding requests of a key; bounded as its tokens are.", ["key"])
        self.key_refusals = count(
            "gateway_key_refusals_total",
            "Embedding requests of a key that its limits, its budget or want of room refused; reason is an error's code.",
            ["key", "reason"],
        )
        self.key_budget_used = gauge(
            "gateway_key_budget_used_ratio", "Of the key's budget of this day or month, the share that is used.", ["key"]
        )
        self.key_expires_at = gauge(
            "gateway_key_expires_timestamp_seconds", "When a key that expires soon does, in Unix seconds.", ["key"]
        )
        self.key_store_up = gauge(
            "gateway_key_store_up", "1 while the keys can be read, or nobody needs one; 0 while the last snapshot goes on."
        )
        self.key_store_up.set(1)
        self.key_snapshot_age = gauge("gateway_key_snapshot_age_seconds", "How old what is known of the keys is.")
        self.store_connections_dropped = count(
            "gateway_store_connections_dropped_total", "Connections to the key store that gave no answer and were cut."
        )
        self.usage_pending_rows = gauge("gateway_usage_pending_rows", "Rows of usage that could not be written yet.")
        self.usage_rows_lost = count("gateway_usage_rows_lost_total", "Rows of usage given up, as too many were waiting.")
        self.group_requests = count(
            "gateway_group_requests_total",
            "Requests a member of a group was asked; outcome is ok or an error's code.",
            ["model", "member", "outcome"],
        )
        self.group_fallbacks = count(
            "gateway_group_fallbacks_total", "Requests that another member than a group's first one served.", ["model"]
        )
        self.config_reloads = count(
            "gateway_config_reloads_total", "Configurations read while running; result is loaded, unchanged or refused.", ["result"]
        )
        self.config_loaded_at = gauge(
            "gateway_config_last_load_timestamp_seconds", "When the configuration in effect was loaded, in Unix seconds."
        )
        self.config_is_accepted = gauge(
            "gateway_config_last_reload_successful", "1 while the configuration read last is in effect, 0 while it was refused."
        )
        self.config_is_accepted.set(1)
        self.background_dead = gauge("gateway_background_dead", "What died and only a restart brings back, as /livez tells it.")
        self.background_restarts = count(
            "gateway_background_restarts_total", "Background tasks that died and were begun anew.", ["task"]
        )
        for task in ("cluster", "group", "live-figures"):  # so that a rate is seen from the first one on
            self.background_restarts.labels(task)
        self.loop_lag = gauge("gateway_event_loop_lag_seconds", "How late the event loop was when last looked at.")
        self.model_info = gauge("gateway_model_info", "1 for each loaded model.", MODEL_INFO)
        gauge("gateway_build_info", "1 for the running version.", ["version"]).labels(__version__).set(1)
        ProcessCollector(registry=self.registry)
        self.servers: list[MetricsServer] = []
        self.models: dict[str, ModelMetrics] = {}
        self.keys: dict[str, KeyMetrics] = {}
        self.shown_keys: dict[Gauge, set[str]] = {}
        # A look-up by labels costs 3 microseconds, a cached one none; their values are bounded, so are these.
        self.http_requests_of = cache(self.http_requests.labels)
        self.http_seconds_of = cache(self.http_seconds.labels)
        self.requests_of = cache(self.requests.labels)

    def record_response(self, route: str, method: str, status: str, *, seconds: float) -> None:
        """A response went out."""
        self.http_requests_of(route, method, status).inc()
        self.http_seconds_of(route).observe(seconds)

    def request_outcome(self, model: str, outcome: str) -> None:
        """An embedding request ended, well or not."""
        self.requests_of(model, outcome).inc()

    def of_key(self, public_id: str) -> "KeyMetrics":
        """The metrics of a key; of all together once MAX_KEY_LABELS have their own."""
        found = self.keys.get(public_id)
        if found is None:
            if OTHER_KEYS not in self.keys:
                self.keys[OTHER_KEYS] = KeyMetrics(OTHER_KEYS, self)
            if len(self.keys) >= MAX_KEY_LABELS:
                return self.keys[OTHER_KEYS]
            found = self.keys[public_id] = KeyMetrics(public_id, self)
        return found

    def open_connections_of(self, *, active: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Where to ask for their numbers."""
        self.open_connections.labels("active").set_function(active)
        self.open_connections.labels("waiting").set_function(waiting)

    def show_by_key(self, gauge: Gauge, values: dict[str, float]) -> None:
        """Exactly these keys. One that stays is never missing in between: a scrape just then would reset its alert."""
        for public_id in self.shown_keys.get(gauge, set()) - values.keys():
            gauge.remove(public_id)
        for public_id, value in values.items():
            gauge.labels(public_id).set(value)
        self.shown_keys[gauge] = set(values)

    def samples(self, names: Iterable[str]) -> Iterator[tuple[str, dict[str, str], float]]:
        """Name, labels and value of the samples with these names, as /metrics has them now; of a name that is not there, none."""
        for family in self.registry.restricted_registry(names).collect():
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def exposition(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self.registry)

    def serve(self, sockets: Iterable[socket.socket]) -> None:
        """Serves /metrics on these, which listen, each from a thread of its own, until `close`."""
        self.servers = [MetricsServer(listening, make_wsgi_app(self.registry)) for listening in sockets]

    def is_served(self) -> bool:
        """Whether its own ports are, where it has some."""
        return all(server.background.is_running for server in self.servers)

    def close(self) -> None:
        """Blocks for half a second at most."""
        for server in self.servers:
            server.background.close(0)  # its end is no death from now on
            server.shutdown()
            server.server_close()
        self.servers = []

    def of_model(self, name: str) -> "ModelMetrics":
        """The metrics of a configured model; clients' own names never come here."""
        if name not in self.models:
            self.models[name] = ModelMetrics(name, self)
        return self.models[name]


class ModelMetrics:
    """A model's own metrics, their labels looked up once."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self.name = name
        self.metrics = metrics
        self.requests = metrics.requests
        # Only the stages this model has: twenty lines of a scrape each.
        self.stage_seconds_of = cache(partial(metrics.stage_seconds.labels, name))
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
        self.group_requests = metrics.group_requests
        self.group_fallbacks = metrics.group_fallbacks
        self.shown: tuple[str, ...] | None = None  # the labels of this model's row in `info`

    def of_upstream(self) -> "UpstreamMetrics":
        """For a model that another server embeds; it is called the same there."""
        return UpstreamMetrics(self.name, self.metrics)

    def record_load(self, *, fidelity: float | None, **labels: str) -> None:
        """The model can serve. `labels` are those of MODEL_INFO beside `model`; a fidelity nobody measured is not shown."""
        self.forget()
        self.shown = (self.name, *(labels[name] for name in MODEL_INFO[1:]))
        self.info.labels(*self.shown).set(1)
        if fidelity is not None:
            self.fidelity.labels(self.name).set(fidelity)

    def forget(self) -> None:
        """It is no longer what it was. What was counted of it stays."""
        if self.shown is not None:
            self.info.remove(*self.shown)
            self.shown = None
        self.fidelity.remove_by_labels({"model": self.name})

    def record_member(self, member: str, outcome: str) -> None:
        """A member of this group was asked. `outcome` is "ok" or an error's code."""
        self.group_requests.labels(self.name, member, outcome).inc()

    def record_member_served(self, member: str, *, is_first: bool) -> None:
        """A member's vectors went out. Of one that is not the first, whoever runs it pays for a fallback."""
        self.record_member(member, "ok")
        self.group_fallbacks.labels(self.name).inc(not is_first)

    def record_restart(self, task: str) -> None:
        """Background work of this kind died, and was begun anew."""
        self.metrics.background_restarts.labels(task).inc()

    def record_lookups(self, **results: int) -> None:
        """So many inputs had each of LOOKUP_RESULTS."""
        for result, num_inputs in results.items():
            if num_inputs:
                self.lookups[result].inc(num_inputs)

    def record_embedding(self, token_counts: list[int], stages: dict[str, float]) -> None:
        """One request's inputs were embedded."""
        self.inputs.inc(len(token_counts))
        self.input_tokens_total.inc(sum(token_counts))
        for count in token_counts:
            self.input_tokens.observe(count)
        for stage, seconds in stages.items():
            self.stage_seconds_of(stage).observe(seconds)

    def record_batch(self, *, num_inputs: int, padded_tokens: int, real_tokens: int) -> None:
        """One batch ran on the device."""
        self.batch_inputs.observe(num_inputs)
        self.batch_tokens.observe(padded_tokens)
        self.batch_padding.observe(padded_tokens / real_tokens)

    def set_queue(self, *, num_inputs: int, num_tokens: int, backlog_seconds: float) -> None:
        self.queue_inputs.set(num_inputs)
        self.queue_tokens.set(num_tokens)
        self.backlog_seconds.set(backlog_seconds)

    def set_cluster(self, replicas: dict[str, int], *, is_up: bool) -> None:
        """How the model's cluster is; `replicas` counts those in each of REPLICA_STATES."""
        self.metrics.cluster_up.labels(self.name).set(is_up)
        for state in REPLICA_STATES:
            self.metrics.cluster_replicas.labels(self.name, state).set(replicas.get(state, 0))

    @contextmanager
    def cluster_call(self) -> Iterator[None]:
        """A request waits for its cluster."""
        outstanding = self.metrics.cluster_outstanding.labels(self.name)
        with outstanding.track_inprogress():
            yield

    def record_cluster_call(self, outcome: str) -> None:
        """One try of a call ended."""
        self.metrics.cluster_calls.labels(self.name, outcome).inc()


class KeyMetrics:
    """A key's own metrics, their labels looked up once."""

    def __init__(self, public_id: str, metrics: Metrics) -> None:
        self.tokens = metrics.key_tokens.labels(public_id)
        self.requests = metrics.key_requests.labels(public_id)
        self.refusals_of = cache(partial(metrics.key_refusals.labels, public_id))  # by an error's code


class UpstreamMetrics:
    """An upstream's own metrics. What can be asked is asked when somebody looks, and costs a request nothing."""

    def __init__(self, name: str, metrics: Metrics) -> None:
        self.name = name
        self.ended = cache(partial(metrics.upstream_requests.labels, name))  # by outcome
        self.retries = metrics.upstream_retries.labels(name)
        self.estimated_tokens = metrics.estimated_tokens.labels(name)
        self.swaps = metrics.upstream_swaps.labels(name)
        self.probe_tokens = metrics.upstream_probe_tokens.labels(name)
        self.extra_requests = metrics.upstream_extra_requests.labels(name)
        self.metrics = metrics

    def watch(
        self,
        *,
        is_up: Callable[[], bool],
        outstanding: Callable[[], int],
        oldest_seconds: Callable[[], float],
        is_open: dict[str, Callable[[], float]],
        is_used: dict[str, Callable[[], float]],
    ) -> None:
        """Where to ask; `is_open` has the breaker of each address, `is_used` whether its vectors are known to be the row's."""
        self.metrics.upstream_up.labels(self.name).set_function(lambda: float(is_up()))
        self.metrics.upstream_outstanding.labels(self.name).set_function(lambda: float(outstanding()))
        self.metrics.upstream_oldest.labels(self.name).set_function(oldest_seconds)
        for address, ask in is_open.items():
            self.metrics.upstream_breaker.labels(self.name, address).set_function(ask)
        for address, ask in is_used.items():
            self.metrics.upstream_address_used.labels(self.name, address).set_function(ask)

    def watch_limits(self, learned: dict[str, Callable[[], float]]) -> None:
        """`learned` tells what was learned of each setting."""
        for setting, ask in learned.items():
            self.metrics.upstream_learned_limit.labels(self.name, setting).set_function(ask)

    def record_probe(self, outcome: str) -> None:
        """A probe ended: "same", "swapped", "other", "unsteady" or "failed"."""
        self.metrics.upstream_probes.labels(self.name, outcome).inc()


class MetricsServer(ThreadingWSGIServer):
    """On a socket that listens already, from a thread of its own."""

    def __init__(self, listening: socket.socket, app: Callable[..., Iterable[bytes]]) -> None:
        self.server_name, self.server_port = address = listening.getsockname()[:2]
        super().__init__(address, SilentHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.setup_environ()
        self.set_app(app)
        self.background = BackgroundThread("metrics", self.serve_forever)
        self.background.start()


class SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library calls it
        """A scrape is worth no line."""
