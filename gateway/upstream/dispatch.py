"""Sends one request to an upstream: chooses an endpoint, judges the endpoint by the result, and retries once if that may help."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Generic, Protocol, TypeVar

from yarl import URL

from gateway.metrics import UpstreamMetrics
from gateway.tracing import call as traced
from gateway.upstream import failures
from gateway.upstream.failures import AttemptFailed, Failure, UpstreamInfo
from gateway.upstream.load_balancing import Endpoint, Endpoints
from gateway.upstream.outage import SILENT_SECONDS, EndpointOutage
from gateway.upstream.retry_budget import RetryBudget
from gateway.upstream.transport import Transport, TransportError, UpstreamResponse

FAULT_SECONDS = 2.0  # an upstream that had this long before the deadline has failed; with less time it was asked too late

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class UpstreamRequest(Generic[Result]):
    """What to post, how many bytes the reply may have, and how to read it.

    `deadline` is when the caller gives up, by `time.monotonic`. `url` may lead to another API of the same server; `headers` belong
    to this request. `is_known_good`: the text is ours and fit for any embedder, so a failure is the server's. `read` raises
    AttemptFailed for a reply without usable vectors.
    """

    content: bytes
    max_bytes: int
    read: Callable[[UpstreamResponse], Awaitable[Result]]
    deadline: float = math.inf
    url: Callable[[Endpoint], URL] = attrgetter("url")
    headers: Mapping[str, str] = field(default_factory=dict)
    is_known_good: bool = False


class Guard(Protocol):
    """Knows which endpoint must be probed before a request goes to it."""

    def is_due(self, endpoint: Endpoint) -> bool: ...

    async def prove(self, endpoint: Endpoint) -> None:
        """Probes an endpoint. Raises AttemptFailed if it cannot be probed now."""

    def has_returned(self) -> None:
        """Called when an endpoint that had failed replies again."""


class Dispatcher:
    """Used only on the event loop. `upstream` is what its errors name; `may_retry` says whether anything is sent twice."""

    def __init__(self, endpoints: Endpoints, metrics: UpstreamMetrics, upstream: UpstreamInfo, *, may_retry: bool) -> None:
        self.endpoints = endpoints
        self.metrics = metrics
        self.upstream = upstream
        self.may_retry = may_retry
        self.budget = RetryBudget()
        self.outages = {each: EndpointOutage(upstream.name, each.label) for each in endpoints.endpoints}
        self.guard: Guard | None = None  # the watch over the endpoints, once there is one
        self.on_return: Callable[[], None] = lambda: None  # called when an endpoint that was unreachable replies again
        metrics.watch(
            is_up=lambda: endpoints.is_up,
            outstanding=lambda: endpoints.num_outstanding,
            oldest_seconds=lambda: endpoints.oldest_seconds,
            is_open={each.label: each.open_or_not for each in endpoints.endpoints},
            is_used={each.label: each.used_or_not for each in endpoints.endpoints},
        )

    async def ask(self, connection: Transport, call: UpstreamRequest[Result]) -> Result:
        """Sends a request, and once more if a retry may help. Returns what its `read` makes of the reply. Raises AttemptFailed."""
        self.budget.earn()
        endpoint, is_proven = self.choose_endpoint(), False
        try:
            endpoint = await self.proven(endpoint, call.deadline)
            is_proven = True
            return await self.send(endpoint, connection, call)
        except AttemptFailed as failed:
            if not (self.may_retry and failed.failure.may_retry and (failed.failure.is_silent or self.budget.spend())):
                raise
            pause = failed.failure.pause_seconds(1)
        self.metrics.retries.inc()
        other = self.choose_endpoint(but=endpoint)
        if other is endpoint:
            await asyncio.sleep(pause)
        if other is not endpoint or not is_proven:
            other = await self.proven(other, call.deadline)
        return await self.send(other, connection, call)

    async def ask_same(self, endpoint: Endpoint, connection: Transport, call: UpstreamRequest[Result]) -> Result:
        """Sends a request once, to this endpoint or to another if this one admits none now. Raises AttemptFailed."""
        if endpoint.proof != "used" or not endpoint.breaker.admits:
            endpoint = self.choose_endpoint()
        return await self.send(await self.proven(endpoint, call.deadline), connection, call)

    async def proven(self, endpoint: Endpoint, deadline: float) -> Endpoint:
        """Probes an endpoint if it is due. Returns it, or another if its vectors are no longer the row's. Raises AttemptFailed."""
        while self.guard is not None and self.guard.is_due(endpoint):
            began = time.monotonic()
            try:
                await self.guard.prove(endpoint)
            except asyncio.CancelledError:  # only this request is cancelled; the probe goes on
                if deadline <= (now := time.monotonic()) and now - began >= FAULT_SECONDS:
                    self.on_failure(endpoint, failures.of_transport_error("timeout", self.upstream), is_counted=True)
                raise
            if endpoint.proof != "used":
                endpoint = self.choose_endpoint()
        return endpoint

    async def send(self, endpoint: Endpoint, connection: Transport, call: UpstreamRequest[Result]) -> Result:
        """Sends a client's request. A suspect endpoint that replies to it is probed at once, any other when its probe is due."""
        endpoint.has_traffic = True
        result = await self.attempt(endpoint, connection, call)
        if endpoint.is_suspect and self.guard is not None:
            self.guard.has_returned()
        return result

    def choose_endpoint(self, but: Endpoint | None = None) -> Endpoint:
        endpoint = self.endpoints.choose(but)
        if endpoint is None:
            self.metrics.ended("open").inc()
            raise AttemptFailed(failures.of_open_breaker(self.endpoints.wait_seconds, self.upstream))
        return endpoint

    async def attempt(
        self, endpoint: Endpoint, connection: Transport, call: UpstreamRequest[Result], *, is_counted: bool = True
    ) -> Result:
        """Sends a request to this endpoint, once. Raises AttemptFailed."""
        about = {
            "gen_ai.operation.name": self.upstream.operation,
            "gen_ai.request.model": self.upstream.model,
            "server.address": endpoint.url.host,
            "server.port": endpoint.url.port,
        }
        began = time.monotonic()
        silence = asyncio.get_running_loop().call_later(SILENT_SECONDS, self.outages[endpoint].silent)
        with endpoint.in_use():
            try:
                with traced(f"{self.upstream.operation} {self.upstream.model}", about) as headers:
                    own = {**headers, **call.headers}
                    answer = await connection.post(call.url(endpoint), call.content, max_bytes=call.max_bytes, headers=own)
                    result = await call.read(answer)
            except TransportError as broken:
                failure = failures.of_transport_error(broken.kind, self.upstream)
                is_alive = broken.kind == "timeout" and endpoint.replied_at > began  # to others: it may hang on these inputs
                failure = replace(failure, is_undecided=(failure.is_undecided or is_alive) and not call.is_known_good)
                self.on_failure(endpoint, failure, is_counted=is_counted)
                raise AttemptFailed(failure, endpoint) from None
            except AttemptFailed as failed:
                failure = replace(failed.failure, is_undecided=failed.failure.is_undecided and not call.is_known_good)
                self.on_failure(endpoint, failure, is_counted=is_counted)
                raise AttemptFailed(failure, endpoint) from None
            except BaseException:  # cancelled: the client left, or its deadline passed
                now = time.monotonic()
                if now >= call.deadline and now - began >= FAULT_SECONDS:
                    self.on_failure(endpoint, failures.of_transport_error("timeout", self.upstream), is_counted=is_counted)
                else:
                    endpoint.breaker.on_cancelled()
                    self.metrics.ended("cancelled").inc(is_counted)
                raise
            finally:
                silence.cancel()
            self.on_response(endpoint)
            self.metrics.ended("ok").inc(is_counted)
            return result

    def on_failure(self, endpoint: Endpoint, failure: Failure, *, is_counted: bool) -> None:
        """Judges an endpoint by a failure. If the inputs may have caused it, the known-good text sent next decides instead."""
        self.metrics.ended(failure.outcome).inc(is_counted)
        if failure.is_undecided:
            endpoint.breaker.on_cancelled()
            return
        endpoint.was_unreachable |= failure.outcome == "connect"
        endpoint.is_suspect |= failure.is_fault or failure.is_other or failure.is_silent
        if failure.outcome == "rate_limited":
            endpoint.limited_until = endpoint.breaker.clock() + max(1.0, failure.wait_seconds)
        if failure.is_silent:  # a new connection will show whether it is alive
            endpoint.breaker.on_cancelled()
            self.outages[endpoint].begin("a connection was lost without a word")
        elif failure.is_fault:
            endpoint.breaker.on_failure()
            if endpoint.breaker.state == "open":
                self.outages[endpoint].begin(f"cooling down after failures, the last: {failure.outcome}")
        else:  # it is alive, and refuses
            self.on_response(endpoint)

    def on_response(self, endpoint: Endpoint) -> None:
        endpoint.replied_at = time.monotonic()
        endpoint.breaker.on_success()
        if endpoint.was_unreachable:
            endpoint.was_unreachable = False
            self.on_return()
        if endpoint.breaker.state == "closed":
            self.outages[endpoint].end()
