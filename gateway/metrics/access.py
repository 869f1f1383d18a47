"""Metrics of keys, limits, usage and their stores. The label `key` is a public id or "other"."""

from functools import cache, partial

from prometheus_client import Gauge

from gateway.metrics.declaration import MetricDeclaration

MAX_KEY_LABELS = 1001  # a thousand keys, and "other"
OTHER_KEYS = "other"


class AccessMetrics:
    """Requests accepted and refused, and what each key used."""

    def __init__(self, declare: MetricDeclaration) -> None:
        self.auth_failures = declare.count("gateway_auth_failures_total", "Requests without a valid key.", ["reason"])
        self.limited = declare.count("gateway_limited_total", "Requests refused for a key's limit.", ["limit"])
        self.limit_waiting = declare.gauge(
            "gateway_limit_waiting_requests", "Requests that wait for a slot of their key's concurrency limit.", merge="engine"
        )
        self.limiter_failures = declare.count(
            "gateway_limiter_failures_total", "Requests whose limits could not be asked for, by what became of them.", ["decision"]
        )
        self.limiter_up = declare.gauge(
            "gateway_limiter_up",
            "1 while the server of limits.redis_url answers, or none is configured; 0 while it does not.",
            merge="engine",
        )
        self.limiter_up.set(1)
        self.key_tokens = declare.count(
            "gateway_key_tokens_total", "Tokens a key used; of the first 1,000 keys, the rest is 'other'.", ["key"]
        )
        self.key_requests = declare.count(
            "gateway_key_requests_total", "Requests of a key for vectors, scores or tokens; bounded as its tokens are.", ["key"]
        )
        self.key_refusals = declare.count(
            "gateway_key_refusals_total",
            "Requests of a key that its limits, its budget or want of room refused; reason is an error's code.",
            ["key", "reason"],
        )
        self.key_budget_used = declare.gauge(
            "gateway_key_budget_used_ratio",
            "Of the key's budget of this day or month, the share that is used.",
            ["key"],
            merge="engine",
        )
        self.key_expires_at = declare.gauge(
            "gateway_key_expires_timestamp_seconds", "When a key that expires soon does, in Unix seconds.", ["key"], merge="engine"
        )
        self.key_store_up = declare.gauge(
            "gateway_key_store_up",
            "1 while the keys can be read, or nobody needs one; 0 while the last snapshot goes on.",
            merge="engine",
        )
        self.key_store_up.set(1)
        self.key_snapshot_age = declare.gauge(
            "gateway_key_snapshot_age_seconds", "How old what is known of the keys is.", merge="engine"
        )
        self.store_connections_dropped = declare.count(
            "gateway_store_connections_dropped_total", "Connections to the key store that gave no answer and were cut."
        )
        self.usage_pending_rows = declare.gauge(
            "gateway_usage_pending_rows", "Rows of usage that could not be written yet.", merge="engine"
        )
        self.usage_rows_lost = declare.count("gateway_usage_rows_lost_total", "Rows of usage given up, as too many were waiting.")
        self.keys: dict[str, KeyMetrics] = {}
        self.shown_keys: dict[Gauge, set[str]] = {}

    def of_key(self, public_id: str) -> "KeyMetrics":
        """Returns the key's own metrics, or those of "other" once there are MAX_KEY_LABELS."""
        found = self.keys.get(public_id)
        if found is None:
            if OTHER_KEYS not in self.keys:
                self.keys[OTHER_KEYS] = KeyMetrics(OTHER_KEYS, self)
            if len(self.keys) >= MAX_KEY_LABELS:
                return self.keys[OTHER_KEYS]
            found = self.keys[public_id] = KeyMetrics(public_id, self)
        return found

    def show_by_key(self, gauge: Gauge, values: dict[str, float]) -> None:
        """Sets the gauge for exactly these keys. A key that is kept is never missing in between: a scrape would reset its alert."""
        for public_id in self.shown_keys.get(gauge, set()) - values.keys():
            gauge.remove(public_id)
        for public_id, value in values.items():
            gauge.labels(public_id).set(value)
        self.shown_keys[gauge] = set(values)


class KeyMetrics:
    """One key's metrics, with their labels looked up once."""

    def __init__(self, public_id: str, access: AccessMetrics) -> None:
        self.tokens = access.key_tokens.labels(public_id)
        self.requests = access.key_requests.labels(public_id)
        self.refusals_of = cache(partial(access.key_refusals.labels, public_id))  # by an error's code
