"""One call to an upstream: which address, what its failure means for that address, whether it is sent once more."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.metrics import UpstreamMetrics
from gateway.tracing import call as traced
from gateway.upstream import failures
from gateway.upstream.connection import Answer, Broken, Connection
from gateway.upstream.endpoint import Endpoint, Endpoints
from gateway.upstream.failures import Failed, Failure, Subject
from gateway.upstream.outage import SILENT_SECONDS, Outage
from gateway.upstream.retry import RetryBudget

FAULT_SECONDS = 2.0  # an upstream that had a request for so long, and its deadline passed, has failed; with less it was asked late

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Call(Generic[Result]):
    """What is posted, how much may come back, and what is made of it: `read` raises Failed for an answer that is none.

    `deadline` is when whoever asked gives up, by `time.monotonic`.
    """

    content: bytes
    max_bytes: int
    read: Callable[[Answer], Awaitable[Result]]
    deadline: float = math.inf


class Exchange:
    """Used on the event loop alone. `subject` is of whom its errors speak; `may_retry` whether anything is sent twice."""

    def __init__(self, endpoints: Endpoints, metrics: UpstreamMetrics, subject: Subject, *, may_retry: bool) -> None:
        self.endpoints = endpoints
        self.metrics = metrics
        self.subject = subject
        self.may_retry = may_retry
        self.budget = RetryBudget()
        self.outages = {each: Outage(subject.name, each.label) for each in endpoints.endpoints}
        metrics.watch(
            is_up=lambda: endpoints.is_up,
            outstanding=lambda: endpoints.num_outstanding,
            oldest_seconds=lambda: endpoints.oldest_seconds,
            is_open={each.label: each.open_or_not for each in endpoints.endpoints},
        )

    async def ask(self, connection: Connection, call: Call[Result]) -> Result:
        """What the call makes of the answer to it. Raises Failed."""
        self.budget.earn()
        endpoint = self.chosen()
        try:
            return await self.tried(endpoint, connection, call)
        except Failed as failed:
            if not (self.may_retry and failed.failure.may_retry and (failed.failure.is_silent or self.budget.spend())):
                raise
            pause = failed.failure.wait_seconds
        self.metrics.retries.inc()
        other = self.chosen(but=endpoint)
        if other is endpoint:
            await asyncio.sleep(pause)
        return await self.tried(other, connection, call)

    def chosen(self, but: Endpoint | None = None) -> Endpoint:
        endpoint = self.endpoints.choose(but)
        if endpoint is None:
            self.metrics.ended("open").inc()
            raise Failed(failures.of_open_breaker(self.endpoints.wait_seconds, self.subject))
        return endpoint

    async def tried(self, endpoint: Endpoint, connection: Connection, call: Call[Result]) -> Result:
        about = {
            "gen_ai.operation.name": "embeddings",
            "gen_ai.request.model": self.subject.model,
            "server.address": endpoint.url.host,
            "server.port": endpoint.url.port,
        }
        began = time.monotonic()
        silence = asyncio.get_running_loop().call_later(SILENT_SECONDS, self.outages[endpoint].silent)
        with endpoint.entered():
            try:
                with traced(f"embeddings {self.subject.model}", about) as headers:
                    answer = await connection.post(endpoint.url, call.content, max_bytes=call.max_bytes, headers=headers)
                    result = await call.read(answer)
            except Broken as broken:
                failure = failures.of_broken(broken.kind, self.subject)
                self.failed(endpoint, failure)
                raise Failed(failure) from None
            except Failed as failed:
                self.failed(endpoint, failed.failure)
                raise
            except BaseException:  # cancelled: the client left, or its time is over
                now = time.monotonic()
                if now >= call.deadline and now - began >= FAULT_SECONDS:
                    self.failed(endpoint, failures.of_broken("timeout", self.subject))
                else:
                    endpoint.breaker.left()
                    self.metrics.ended("cancelled").inc()
                raise
            finally:
                silence.cancel()
            self.answered(endpoint)
            self.metrics.ended("ok").inc()
            return result

    def failed(self, endpoint: Endpoint, failure: Failure) -> None:
        if failure.is_silent:  # whether it is there a new connection will tell
            endpoint.breaker.left()
            self.outages[endpoint].begin("a connection was lost without a word")
        elif failure.is_fault:
            endpoint.breaker.failed()
            if endpoint.breaker.state == "open":
                self.outages[endpoint].begin(f"left alone after failures, the last: {failure.outcome}")
        else:  # it is there, and says no
            self.answered(endpoint)
        self.metrics.ended(failure.outcome).inc()

    def answered(self, endpoint: Endpoint) -> None:
        endpoint.breaker.succeeded()
        if endpoint.breaker.state == "closed":
            self.outages[endpoint].end()
