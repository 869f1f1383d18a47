"""Metrics of HTTP and its connections. `route` is a route's template or "unmatched", `reason` a code of gateway/errors/."""

from collections.abc import Callable
from functools import cache

from gateway.metrics.declaration import SECONDS, MetricDeclaration


class HTTPMetrics:
    """Requests to every route, known or not, and the server's connections."""

    def __init__(self, declare: MetricDeclaration) -> None:
        self.requests = declare.count(
            "gateway_http_requests_total", "Responses, by what was asked and how it ended.", ["route", "method", "status"]
        )
        self.seconds = declare.histogram(
            "gateway_http_request_duration_seconds", "From first byte in to last byte out.", ["route"], buckets=SECONDS
        )
        self.num_in_flight = 0
        declare.gauge("gateway_http_requests_in_flight", "Requests being answered.").set_function(lambda: self.num_in_flight)
        self.rejections = declare.count("gateway_rejections_total", "Requests refused for want of room or time.", ["reason"])
        self.connections_cut = declare.count(
            "gateway_connections_cut_total", "Connections ended for what their clients did, or for want of room.", ["reason"]
        )
        for reason in ("server_overloaded", "address_limit", "made_room"):  # starts at 0, so that a rate includes the first one
            self.connections_cut.labels(reason)
        self.open_connections = declare.gauge("gateway_open_connections", "Open connections, by what they do.", ["state"])
        self.max_connections = declare.gauge("gateway_max_connections", "Connections that may be open at once.", merge="max")
        # A look-up by labels costs 3 microseconds, a cached one none. Label values are bounded, so these caches are too.
        self.requests_of = cache(self.requests.labels)
        self.seconds_of = cache(self.seconds.labels)

    def record_response(self, route: str, method: str, status: str, *, seconds: float) -> None:
        """Counts a response that was sent."""
        self.requests_of(route, method, status).inc()
        self.seconds_of(route).observe(seconds)

    def open_connections_of(self, *, active: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Sets the functions that a scrape calls for the numbers."""
        self.open_connections.labels("active").set_function(active)
        self.open_connections.labels("waiting").set_function(waiting)
