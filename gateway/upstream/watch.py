"""Change detection by probes: watches the endpoints of one row, and knows which vectors they give now.

    identity    what decides which rows may share a cache: dialect, name, addresses, the row's own settings, and what the server
                reports (Ollama's digest, TEI's revision, another gateway's fingerprint, /models of llama.cpp and vLLM)
    signature   32 coarse bits of the vectors themselves (`vector_signature`). They and the server's report, but no addresses, make
                the fingerprint. So any gateway, even one that lost its data, gives equal vectors the same fingerprint
    noise       how far apart a server's replies to one text lie (`probe`): vectors that are no farther apart are the same
    proof       each endpoint is measured before it is used, and used only if its vectors are the row's
    watch       one short probe (some 8 tokens) of a failed endpoint before its next request, and of one with traffic within
                `probe_seconds`. Without a successful probe for that long, cache and endpoint serve nothing. So the old model's
                vectors are served for that long at most

A change opens a new space (`vector_space`): new cache keys, mostly a new fingerprint. Requests that straddle it start again. No
probe can see a model that is swapped and swapped back between two probes without a single failure.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from functools import partial
from typing import Any

from gateway.background import launch
from gateway.backoff import Backoff
from gateway.log import get_logger
from gateway.metrics import UpstreamMetrics
from gateway.upstream import failures
from gateway.upstream.failures import AttemptFailed, Failure
from gateway.upstream.identity_check import ConstancyCheck
from gateway.upstream.load_balancing import Endpoint, Endpoints, Proof
from gateway.upstream.measure import TWO_MODELS, Measurement, Prober
from gateway.upstream.probe import are_same
from gateway.upstream.vector_space import Space, Spaces

EARLIEST, LATEST = 0.5, 0.9  # of probe_seconds: when an endpoint with traffic is probed in the background
LOOK_SECONDS = 1.0  # between two checks for due probes
MAX_PAUSE_SECONDS = 4.0
UNAVAILABLE = Backoff(first_seconds=0.25, max_seconds=MAX_PAUSE_SECONDS)  # of an endpoint
OTHER = Backoff(first_seconds=MAX_PAUSE_SECONDS, max_seconds=300.0)  # of one that gives other vectors: each try costs tokens
MAX_SWAPS, SWAPS_WITHIN = 4, 10  # more swaps within SWAPS_WITHIN * probe_seconds mean two models that reply in turn
MAX_PROBE_SECONDS = 10.0  # for one probe: requests may be waiting for it


class Watch:
    """`space` is what the row serves now. Used only on the event loop; `run` is its background task."""

    def __init__(  # noqa: PLR0913 - what it watches, by what, and what it updates
        self,
        endpoints: Endpoints,
        prober: Prober,
        spaces: Spaces,
        *,
        settle: Callable[[Measurement], Space],
        probe_seconds: float,
        patience_seconds: float,
        metrics: UpstreamMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`settle` applies a measurement to the row and returns its space; `patience_seconds` bounds a measurement."""
        self.endpoints = endpoints
        self.prober = prober
        self.spaces = spaces
        self.upstream = prober.client.upstream
        self.settle = settle
        self.probe_seconds = probe_seconds
        self.patience_seconds = patience_seconds
        self.metrics = metrics
        self.clock = clock
        self.log = get_logger().bind(model=self.upstream.name)
        self.space: Space | None = None
        self.refusal: Failure | None = None  # why an endpoint could not be measured
        self.constancy = ConstancyCheck(prober, max_seconds=min(patience_seconds, MAX_PROBE_SECONDS))
        self.swapped_at: deque[float] = deque(maxlen=MAX_SWAPS)
        self.lock = asyncio.Lock()
        self.flights: dict[Hashable, asyncio.Task[None]] = {}
        self.woken = asyncio.Event()
        self.share = random.uniform(EARLIEST, LATEST)  # noqa: S311 - so that many gateways do not probe at once

    # Measuring endpoints that are not used.

    async def begin(self) -> Failure | None:
        """Measures every unused endpoint. Returns None if at least one now gives the row's vectors, else why none does."""
        async with self.lock:
            waiting = [endpoint for endpoint in self.endpoints.endpoints if endpoint.proof != "used"]
            sent_at = self.clock()
            found = await asyncio.gather(*(self.measure(endpoint) for endpoint in waiting))
            for endpoint, result in zip(waiting, found, strict=True):
                if isinstance(result, Measurement):
                    self.weigh(endpoint, result, sent_at)
        failed = [result for result in found if isinstance(result, Failure)]
        if self.endpoints.used:
            return None
        return next((failure for failure in failed if not failure.is_lasting), failed[0])

    async def measure(self, endpoint: Endpoint) -> Measurement | Failure:
        """Measures an unused endpoint, within `patience_seconds`."""
        try:
            async with asyncio.timeout(self.patience_seconds):
                return await self.prober.measure(endpoint)
        except AttemptFailed as failed:
            failure = failed.failure
        except TimeoutError:
            failure = failures.of_transport_error("timeout", self.upstream)
        self.set_aside(endpoint, endpoint.proof)
        self.metrics.ended(failure.outcome).inc()
        endpoint.breaker.close()  # no request waits for it
        self.refusal = failure
        return failure

    def weigh(self, endpoint: Endpoint, measured: Measurement, sent_at: float) -> None:
        """Takes an endpoint if its vectors are the row's, or if the row has none yet. Refuses it otherwise."""
        if not self.endpoints.used:
            self.swap(endpoint, measured)
        elif self.space is None or not are_same(self.space.reference, measured.reference) or self.is_asked_otherwise(measured):
            self.refuse(endpoint, "other")
            return
        self.take(endpoint, measured, sent_at)

    def is_asked_otherwise(self, measured: Measurement) -> bool:
        """Whether it wants requests in another form than the row's, or gives probabilities where the others give logits."""
        return measured.known.own != self.prober.client.known.own

    def take(self, endpoint: Endpoint, measured: Measurement, sent_at: float) -> None:
        client = self.prober.client
        client.known.as_base64 &= measured.known.as_base64
        client.limits.take(measured.reported.max_inputs, is_alone=measured.is_alone, measured_max_inputs=measured.max_inputs)
        self.refusal = None
        self.metrics.ended("ok").inc()
        self.constancy.reported[endpoint] = measured.reported.identity
        endpoint.proof, endpoint.num_tries, endpoint.verified_at = "used", 0, sent_at
        endpoint.is_suspect = endpoint.has_traffic = False
        endpoint.breaker.close()

    def refuse(self, endpoint: Endpoint, proof: Proof) -> None:
        if endpoint.proof != proof:
            self.log.error("upstream_address_not_used", address=endpoint.label, reason=REASONS[proof])
        self.metrics.record_probe(proof)
        self.set_aside(endpoint, proof)

    def set_aside(self, endpoint: Endpoint, proof: Proof, seconds: float | None = None) -> None:
        """Stops using an endpoint. It is measured again after `seconds`, or after a backoff."""
        endpoint.proof, endpoint.num_tries = proof, endpoint.num_tries + 1
        backoff = OTHER if proof == "other" else UNAVAILABLE
        endpoint.retry_at = self.clock() + (backoff.pause_seconds(endpoint.num_tries) if seconds is None else seconds)

    # Probing endpoints that are used.

    def has_lapsed(self, endpoint: Endpoint) -> bool:
        return self.probe_seconds > 0 and self.clock() - endpoint.verified_at > self.probe_seconds

    def is_due(self, endpoint: Endpoint) -> bool:
        """Whether it must be probed before its next request."""
        return endpoint.is_suspect or self.has_lapsed(endpoint)

    @property
    def is_unsure(self) -> bool:
        """Whether a probe must come before any reply, even one from the cache."""
        used = self.endpoints.used
        if self.space is None or self.space.is_stale or not used:
            return True
        lapsed = [endpoint for endpoint in used if self.has_lapsed(endpoint)]
        return len(lapsed) == len(used) or any(endpoint.has_traffic for endpoint in lapsed)

    async def verify(self) -> Space:
        """Probes if the row is unsure. Returns the space that it may serve now. Raises AttemptFailed if that cannot be known."""
        if self.is_unsure:
            await self.flight("row", self.verify_all)
        if self.space is None or self.space.is_stale:
            raise AttemptFailed(self.unproven)
        return self.space

    @property
    def unproven(self) -> Failure:
        return self.refusal or failures.of_unproven(UNPROVEN, self.upstream)

    async def prove(self, endpoint: Endpoint) -> None:
        """Probes an endpoint that is due. This may end the endpoint's use. Raises AttemptFailed if it cannot be probed now."""
        await self.flight(endpoint, partial(self.check_due, endpoint))

    def has_returned(self) -> None:
        self.woken.set()

    async def flight(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Single flight: all waiters share one run of `work`. The run outlives them: the next waiter would only restart it."""
        task = self.flights.get(key)
        if task is None:
            task = self.flights[key] = launch(work(), name=f"probe-{self.upstream.name}")
            task.add_done_callback(lambda _: self.flights.pop(key, None))
        await asyncio.shield(task)

    async def verify_all(self) -> None:
        async with self.lock:
            failure = await self.recheck() if self.is_unsure else None
            if self.space is not None and self.space.is_stale and self.endpoints.used and failure is None:
                self.space = self.spaces.again(self.space)  # another row saw a change, now undone
            if self.is_unsure:
                raise AttemptFailed(failure or self.unproven)

    async def recheck(self) -> Failure | None:
        """Probes the endpoints that are due. Returns why a probe failed, or None if the row may serve."""
        is_stale = self.space is not None and self.space.is_stale
        failure = None
        for endpoint in self.endpoints.used:
            if endpoint.proof == "used" and (is_stale or self.has_lapsed(endpoint)):
                try:
                    await self.check(endpoint)
                except AttemptFailed as failed:
                    failure = failure or failed.failure
                    self.lapse(endpoint)
        if not self.endpoints.used:
            failure = await self.retry() or failure
        return None if self.endpoints.used and not self.is_unsure else failure

    def lapse(self, endpoint: Endpoint) -> None:
        """Handles a failed probe. Requests since the last probe may have got another model's vectors: opens a new space then."""
        if endpoint.has_traffic and self.space is not None and not self.space.is_stale:
            self.space = self.spaces.again(self.space)
        endpoint.is_suspect, endpoint.has_traffic = endpoint.proof == "used", False

    async def retry(self) -> Failure | None:
        """Measures unused endpoints whose pause is over. Returns the first failure, or None."""
        failure = None
        for endpoint in self.endpoints.endpoints:
            if endpoint.proof != "used" and endpoint.retry_at <= self.clock():
                sent_at = self.clock()
                found = await self.measure(endpoint)
                if isinstance(found, Measurement):
                    self.weigh(endpoint, found, sent_at)
                else:
                    failure = failure or found
        return failure

    async def check_due(self, endpoint: Endpoint, *, is_soon: bool = False) -> None:
        async with self.lock:
            if endpoint.proof == "used" and (is_soon or self.is_due(endpoint)):
                await self.check(endpoint)

    async def check(self, endpoint: Endpoint) -> None:
        """Probes a used endpoint. This may end the endpoint's use. Raises AttemptFailed if it cannot be probed."""
        now = self.clock()
        if now < endpoint.limited_until:
            raise AttemptFailed(
                failures.of_unproven("has too much to do", self.upstream, wait_seconds=endpoint.limited_until - now)
            )
        if not endpoint.breaker.admits:
            raise AttemptFailed(failures.of_open_breaker(endpoint.breaker.wait_seconds, self.upstream))
        had_traffic, endpoint.has_traffic = endpoint.has_traffic, False
        is_late = had_traffic and self.has_lapsed(endpoint)
        try:
            if await self.gives(endpoint):
                if is_late and self.space is not None:  # a model may have come and gone since then
                    self.space = self.spaces.again(self.space)
                endpoint.verified_at, endpoint.is_suspect = now, False
                self.metrics.record_probe("same")
                self.metrics.ended("ok").inc()
            else:
                await self.on_change(endpoint)
        except AttemptFailed as failed:
            endpoint.has_traffic |= had_traffic
            self.metrics.record_probe("failed")
            self.metrics.ended(failed.failure.outcome).inc()
            raise

    async def gives(self, endpoint: Endpoint) -> bool:
        return self.space is not None and await self.constancy.gives(endpoint, self.space.reference)

    async def on_change(self, endpoint: Endpoint) -> None:
        """Handles an endpoint that gives other vectors. If others still give the row's vectors, the row goes on without this one.

        Otherwise the row's model changed. Raises AttemptFailed if the new vectors cannot be served.
        """
        before = self.space
        if before is None:
            return
        before.is_stale = True
        sent_at = self.clock()
        endpoint.proof = "unproven"
        remaining = [other for other in self.endpoints.used if await self.still_gives(other)]
        if remaining:
            self.space = self.spaces.again(before)
            self.refuse(endpoint, "other")
            return
        found = await self.measure(endpoint)
        if isinstance(found, Failure):
            self.metrics.record_probe("failed")
            self.log.error("upstream_changed", address=endpoint.label, reason=found.error.message)
            raise AttemptFailed(found)
        is_told_otherwise = (
            found.reported.identity != self.constancy.reported.get(endpoint, "")
            or found.known.theirs != self.prober.client.known.theirs
        )
        self.swapped_at.append(sent_at)
        if (are_same(before.reference, found.reference) and not is_told_otherwise) or self.swaps_too_often:
            self.refuse(endpoint, "unsteady")
            if self.swaps_too_often:
                self.set_aside(endpoint, "unsteady", self.probe_seconds or MAX_PAUSE_SECONDS)
            self.refusal = failures.of_unproven(TWO_MODELS, self.upstream)
            raise AttemptFailed(self.refusal)
        self.swap(endpoint, found)
        self.take(endpoint, found, sent_at)

    async def still_gives(self, endpoint: Endpoint) -> bool:
        """Probes an endpoint after another one changed. If it fails or differs, it is set aside and measured again at once."""
        sent_at = self.clock()
        with suppress(AttemptFailed):
            if await self.gives(endpoint):
                endpoint.verified_at, endpoint.is_suspect, endpoint.has_traffic = sent_at, False, False
                return True
        self.set_aside(endpoint, "unproven", 0.0)
        return False

    @property
    def swaps_too_often(self) -> bool:
        span = SWAPS_WITHIN * (self.probe_seconds or MAX_PAUSE_SECONDS)
        return len(self.swapped_at) == MAX_SWAPS and self.clock() - self.swapped_at[0] < span

    def swap(self, endpoint: Endpoint, measured: Measurement) -> None:
        """Makes the measured vectors the row's."""
        before, self.space = self.space, self.settle(measured)
        if before is not None and before.fingerprint != self.space.fingerprint:
            self.metrics.swaps.inc()
            self.metrics.record_probe("swapped")
            self.log.warning(
                "upstream_swapped", address=endpoint.label, fingerprint=self.space.fingerprint, before=before.fingerprint,
                hint="its server gives other vectors than before: its model was changed. Do not mix these with what is indexed",
            )  # fmt: skip
        for other in self.endpoints.endpoints:
            other.retry_at = self.clock() if other.proof != "used" else other.retry_at
        self.woken.set()

    # Probing in the background.

    async def run(self) -> None:
        """Probes endpoints with traffic early, so that no request waits for a probe; takes back endpoints that recover."""
        look = min(LOOK_SECONDS, self.probe_seconds / 10) if self.probe_seconds else LOOK_SECONDS
        while True:
            with suppress(TimeoutError):  # not by wait_for: Python 3.11's loses a cancellation that arrives with the event
                async with asyncio.timeout(look):
                    await self.woken.wait()
            self.woken.clear()
            await self.look()

    async def look(self) -> None:
        """Runs the probes and measurements that are due."""
        for endpoint in self.endpoints.endpoints:
            is_used = endpoint.proof == "used"
            age = self.clock() - endpoint.verified_at
            is_soon = self.probe_seconds > 0 and age >= self.share * self.probe_seconds
            if is_used and endpoint.has_traffic and (is_soon or endpoint.is_suspect):
                with suppress(AttemptFailed):
                    await self.flight(endpoint, partial(self.check_due, endpoint, is_soon=True))
            elif not is_used and endpoint.retry_at <= self.clock():
                await self.flight("retry", self.retry_set_aside)

    async def retry_set_aside(self) -> None:
        async with self.lock:
            await self.retry()

    async def close(self) -> None:
        tasks = list(self.flights.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


UNPROVEN = "gave vectors of two models or of a new one, and it is not yet known which it gives now"
REASONS = {
    "other": "it gives other vectors than the other addresses of its row, or scores in another form",
    "unsteady": "it gives vectors of two models in turn",
    "unproven": "it could not be measured",
}
