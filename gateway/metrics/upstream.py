"""Metrics of upstream servers. `upstream` is the name of a configured model, `address` one of its addresses."""

from collections.abc import Callable
from functools import cache, partial

from gateway.metrics.declaration import MetricDeclaration


class UpstreamFamilies:
    """The metrics of all upstreams, by upstream."""

    def __init__(self, declare: MetricDeclaration) -> None:
        upstream, model = ["upstream"], ["model"]
        self.requests = declare.count(
            "gateway_upstream_requests_total",
            "Requests to other servers, retries included, by how they ended.",
            [*upstream, "outcome"],
        )
        self.retries = declare.count(
            "gateway_upstream_retries_total", "Requests to other servers that were sent once more.", upstream
        )
        self.up = declare.gauge(
            "gateway_upstream_up",
            "1 while any of its addresses takes requests, 0 while all are cooling down.",
            upstream,
            merge="engine",
        )
        self.breaker = declare.gauge(
            "gateway_upstream_breaker_open",
            "1 while this address is cooling down after failures.",
            [*upstream, "address"],
            merge="engine",
        )
        self.address_used = declare.gauge(
            "gateway_upstream_address_used",
            "1 while this address is proven to give the row's vectors, 0 while it is not used.",
            [*upstream, "address"],
            merge="engine",
        )
        self.swaps = declare.count(
            "gateway_upstream_swaps_total",
            "Times that other vectors came from the server than before: its model was changed.",
            upstream,
        )
        self.probes = declare.count(
            "gateway_upstream_probes_total", "Probes of which vectors a server gives, by what was found.", [*upstream, "outcome"]
        )
        self.probe_tokens = declare.count(
            "gateway_upstream_probe_tokens_total", "Tokens of all probes, which the server may charge for.", upstream
        )
        self.learned_limit = declare.gauge(
            "gateway_upstream_learned_limit",
            "How much one request may hold, as this server's refusals taught: of the row's `setting`; 0 where none did.",
            [*upstream, "setting"],
            merge="engine",
        )
        self.extra_requests = declare.count(
            "gateway_upstream_extra_requests_total",
            "Requests to other servers that were sent to find out why one was refused.",
            upstream,
        )
        self.outstanding = declare.gauge(
            "gateway_upstream_outstanding_requests", "Requests it has not answered yet.", upstream, merge="engine"
        )
        self.oldest = declare.gauge(
            "gateway_upstream_oldest_request_seconds",
            "How long the oldest request it has not answered yet has been there.",
            upstream,
            merge="engine",
        )
        self.estimated_tokens = declare.count(
            "gateway_estimated_tokens_total", "Of the tokens embedded, those an upstream did not count: they are estimated.", model
        )


class UpstreamMetrics:
    """One upstream's metrics. Gauges are computed when they are scraped, and cost a request nothing."""

    def __init__(self, name: str, families: UpstreamFamilies) -> None:
        self.name = name
        self.ended = cache(partial(families.requests.labels, name))  # by outcome
        self.retries = families.retries.labels(name)
        self.estimated_tokens = families.estimated_tokens.labels(name)
        self.swaps = families.swaps.labels(name)
        self.probe_tokens = families.probe_tokens.labels(name)
        self.extra_requests = families.extra_requests.labels(name)
        self.families = families

    def watch(
        self,
        *,
        is_up: Callable[[], bool],
        outstanding: Callable[[], int],
        oldest_seconds: Callable[[], float],
        is_open: dict[str, Callable[[], float]],
        is_used: dict[str, Callable[[], float]],
    ) -> None:
        """Sets the functions that a scrape calls: `is_open` tells each address's breaker, `is_used` whether it
        is proven to give the row's vectors."""
        self.families.up.labels(self.name).set_function(lambda: float(is_up()))
        self.families.outstanding.labels(self.name).set_function(lambda: float(outstanding()))
        self.families.oldest.labels(self.name).set_function(oldest_seconds)
        for address, ask in is_open.items():
            self.families.breaker.labels(self.name, address).set_function(ask)
        for address, ask in is_used.items():
            self.families.address_used.labels(self.name, address).set_function(ask)

    def watch_limits(self, learned: dict[str, Callable[[], float]]) -> None:
        """Sets the functions that a scrape calls for the learned limit of each setting."""
        for setting, ask in learned.items():
            self.families.learned_limit.labels(self.name, setting).set_function(ask)

    def record_probe(self, outcome: str) -> None:
        """Counts a probe by its outcome: "same", "swapped", "other", "unsteady" or "failed"."""
        self.families.probes.labels(self.name, outcome).inc()
