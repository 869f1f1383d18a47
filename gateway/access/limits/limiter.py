"""The rate limiter: charges one request on arrival and its tokens once they are counted, and refunds both if its work never ran.

A request that is refused for its tokens is still charged as a request: its body was read and counted. So is a request whose client
left: else leaving early would make the reading free. Only 502, 503 and the end of the server refund.

Work done for a request before it was refused is charged to its key's tokens a minute, but not to its budget or usage: the tokens
counted and the bytes decompressed and decoded, at most a burst for one request. Else a body of a few KB that decompresses to 16 MB
and is then refused would be free, again and again. The first 429 is free; further ones, until the caller is served, cost a small
share of the tokens that were counted for them.
"""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from gateway.access.keys.key import UNLIMITED, Allowance, Caller
from gateway.access.limits.concurrency_queue import ConcurrencyQueue, OnDisconnect
from gateway.access.limits.gcra import SECOND, RateLimits, limits_of
from gateway.access.limits.local_store import Cost, RateLimitStore, RateLimitStoreUnavailable, RateState
from gateway.config import LimitSettings
from gateway.errors import ClientError, ClientGone, GatewayError, LimiterUnavailable, RateLimited, RequestExceedsLimit
from gateway.metrics import Metrics

NEVER_RAN = {502, 503}
NOTHING = Cost()
# The price of a body that was decompressed, decoded and refused: 16 MB take a core 0.02 to 0.05 s, in which it embeds 700 tokens at
# most. The price is a few times that, as the memory counts too.
BYTES_PER_TOKEN = 4096
# Counting a token takes a core 0.7 microseconds, embedding one 68. Only a caller that retries without waiting pays this price for
# its 429s. A caller that obeys Retry-After is served, and pays for that alone.
COUNTED_PER_TOKEN = 64
MAX_REFUSED = 100_000
POLL_SECONDS = 0.1  # between checks whether another gateway has released a slot


class Limiter:
    """Applies each caller's own limits, and the defaults of the settings for the others."""

    def __init__(
        self, settings: LimitSettings, limit_store: RateLimitStore, metrics: Metrics, queue: ConcurrencyQueue | None = None
    ) -> None:
        """`queue` is that of the limiter before a reload: its waiters go on waiting."""
        self.settings = settings
        self.store = limit_store
        self.queue = queue or ConcurrencyQueue()
        self.queue.change_default(settings.max_concurrent_requests)
        self.metrics = metrics
        metrics.access.limit_waiting.set_function(lambda: self.queue.num_waiting)
        self.default = Allowance(
            requests_per_minute=settings.requests_per_minute,
            requests_burst=settings.requests_burst,
            tokens_per_minute=settings.tokens_per_minute,
            tokens_burst=settings.tokens_burst,
            max_concurrent_requests=settings.max_concurrent_requests,
        )
        self.default_limits = limits_of(UNLIMITED, self.default)
        self.refused: dict[str, None] = {}  # callers refused for their tokens and not served since, oldest first
        self.names = map(f"{secrets.token_hex(8)}-{{}}".format, itertools.count())

    async def start(self) -> None:
        await self.store.start()

    def lease(self, caller: Caller, on_disconnect: OnDisconnect | None = None) -> "RateLimitLease":
        """A lease for one request, from arrival to response. The entries of `on_disconnect` are called if the client leaves."""
        allowance = caller.allowance
        limits = self.default_limits if allowance is UNLIMITED else limits_of(allowance, self.default)
        return RateLimitLease(self, caller, limits, on_disconnect)

    async def read(self, asked: Awaitable[RateState]) -> RateState | None:
        """Returns the state; None if the store is unavailable and requests may pass. Raises LimiterUnavailable if they may not."""
        try:
            return await asked
        except RateLimitStoreUnavailable:
            may_pass = self.settings.on_limiter_failure != "deny"
            self.metrics.access.limiter_failures.labels("allowed" if may_pass else "denied").inc()
            if not may_pass:
                raise LimiterUnavailable from None
            return None

    def note_refused(self, caller: str) -> None:
        self.refused[caller] = None
        if len(self.refused) > MAX_REFUSED:
            del self.refused[next(iter(self.refused))]

    @property
    def shortfall(self) -> str | None:
        """While the store is unavailable, how limits are applied, in one public word (`on_limiter_failure`); else None."""
        return self.settings.on_limiter_failure if self.store.outage is not None else None

    @property
    def is_alive(self) -> bool:
        return self.store.is_alive

    async def close(self) -> None:
        await self.store.close()


class RateLimitLease:
    """A context for one request. `state` is the caller's rate state, None if unknown. Entering raises RateLimited at a limit."""

    __slots__ = (
        "asked_at", "caller", "charged", "has_turn", "limiter", "limits", "name", "num_bytes", "num_wasted_tokens", "on_disconnect",
        "started_at", "state",
    )  # fmt: skip

    def __init__(self, limiter: Limiter, caller: Caller, limits: RateLimits, on_disconnect: OnDisconnect | None = None) -> None:
        self.limiter = limiter
        self.caller = caller
        self.limits = limits
        self.state: RateState | None = None
        self.charged = NOTHING
        self.num_bytes = 0  # of its decompressed body, once it has arrived
        self.num_wasted_tokens = 0  # the price of a 429
        self.name = next(limiter.names)
        self.on_disconnect = on_disconnect
        self.has_turn = False
        self.asked_at = self.started_at = limiter.queue.clock()

    @property
    def waited_seconds(self) -> float:
        return self.started_at - self.asked_at

    async def __aenter__(self) -> "RateLimitLease":
        if self.limits.is_none:
            return self
        try:
            await self.take_turn()
            await self.enter_elsewhere()
        except BaseException as error:
            self.end_turn()
            if isinstance(error, RateLimited) and (self.state is None or self.state.refused == "concurrency"):
                self.limiter.metrics.access.limited.labels("concurrency").inc()
                await self.read_state()
            raise
        self.started_at = self.limiter.queue.clock()
        return self

    async def take_turn(self) -> None:
        """Waits for a slot in this process's queue. Raises what ConcurrencyQueue.enter raises."""
        most = self.limits.max_concurrent_requests
        if most is not None and self.limiter.shortfall != "allow":
            has_own = self.caller.allowance.max_concurrent_requests is not None
            settings = self.limiter.settings
            await self.limiter.queue.enter(self.caller.public_id, most, settings, self.on_disconnect, has_own_limit=has_own)
            self.has_turn = True

    def end_turn(self, *, seconds: float | None = None) -> None:
        if self.has_turn:
            self.has_turn = False
            self.limiter.queue.leave(self.caller.public_id, seconds=seconds)

    async def read_state(self) -> None:
        """Reads the state of a caller that was refused before the store was asked, for the response's headers."""
        with suppress(LimiterUnavailable):
            self.state = await self.limiter.read(self.limiter.store.charge(self.caller.public_id, self.limits, 0))

    async def enter_elsewhere(self) -> None:
        """Enters the store, and polls it up to `max_wait_seconds` while requests on other gateways take all slots."""
        until = self.asked_at + self.limiter.settings.max_wait_seconds
        while True:
            try:
                return await self.enter()
            except RateLimited:
                queue = self.limiter.queue
                left = until - queue.clock()
                if self.state is None or self.state.refused != "concurrency" or left <= 0:
                    raise
            await queue.pause(min(left, POLL_SECONDS * (0.5 + queue.draw())), self.on_disconnect)
            self.state = None  # if the next answer is lost, the slot may be taken

    async def enter(self) -> None:
        settings = self.limiter.settings
        min_tokens = 1 if self.limits.tokens is not None and settings.charge_cached else 0  # cached inputs may cost nothing
        limit_store = self.limiter.store
        if self.has_turn and (most := self.limiter.queue.lines[self.caller.public_id].most) != self.limits.max_concurrent_requests:
            self.limits = replace(self.limits, max_concurrent_requests=most)  # it changed while the request waited
        try:
            asked = limit_store.enter(self.caller.public_id, self.limits, self.name, min_tokens=min_tokens)
            await self.check(asked, Cost(requests=1), Cost(tokens=min_tokens))
        except BaseException:
            if self.state is None:  # the slot may or may not be taken; releasing none is harmless
                limit_store.leave(self.caller.public_id, self.limits, self.name, NOTHING)
            raise

    async def charge(self, num_tokens: int, *, num_cached_tokens: int = 0) -> None:
        """Charges a request's tokens, or only those not cached. Raises RateLimited or RequestExceedsLimit."""
        rate = self.limits.tokens
        if rate is None:
            return
        if not self.limiter.settings.charge_cached:
            num_tokens -= num_cached_tokens
        if not num_tokens:
            return
        if num_tokens > rate.max_cost:
            self.limiter.metrics.access.limited.labels("tokens").inc()
            raise RequestExceedsLimit(num_tokens, max_tokens=rate.max_cost, per_minute=rate.per_minute).after(num_tokens=num_tokens)
        asked = self.limiter.store.charge(self.caller.public_id, self.limits, num_tokens)
        if self.caller.public_id in self.limiter.refused:
            self.num_wasted_tokens = num_tokens // COUNTED_PER_TOKEN
        try:
            await self.check(asked, Cost(tokens=num_tokens), Cost(tokens=num_tokens))
        except RateLimited:
            self.limiter.note_refused(self.caller.public_id)
            raise
        self.limiter.refused.pop(self.caller.public_id, None)

    async def check(self, asked: Awaitable[RateState], cost: Cost, needed: Cost) -> None:
        self.state = state = await self.limiter.read(asked)
        if state is None:
            return
        if state.refused is not None:
            if state.refused != "concurrency":  # polled repeatedly, and counted once at the end
                self.limiter.metrics.access.limited.labels(state.refused).inc()
            raise self.refusal(state, needed)
        self.charged = Cost(self.charged.requests + cost.requests, self.charged.tokens + cost.tokens)

    def refusal(self, state: RateState, needed: Cost) -> RateLimited:
        wait_seconds = state.wait / SECOND
        if state.refused == "tokens" and self.limits.tokens is not None:
            rate, asked = self.limits.tokens, needed.tokens
            debt = rate.charge(state.tokens_debt, self.num_wasted_tokens)
            wait_seconds = (rate.wait(debt, asked) if self.num_wasted_tokens else state.wait) / SECOND
        elif state.refused == "requests" and self.limits.requests is not None:
            rate, debt, asked = self.limits.requests, state.requests_debt, 1
        else:
            return self.limiter.queue.refusal(self.caller.public_id)
        what = f"{state.refused} per minute: limit {rate.per_minute}, remaining {rate.remaining(debt)}, requested {asked}"
        return RateLimited(state.refused, what, wait_seconds=wait_seconds)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.limits.is_none:
            return
        returned = self.charged if _never_ran(error) else Cost(tokens=-self.price(error))
        if self.state is not None and returned != NOTHING:
            self.state = _after_refund(self.limits, self.state, returned)
        self.limiter.store.leave(self.caller.public_id, self.limits, self.name, returned)
        self.end_turn(seconds=self.limiter.queue.clock() - self.started_at)

    def price(self, error: BaseException | None) -> int:
        """The price, in tokens, of work that was refused or whose client left before it was charged."""
        if self.limits.tokens is None or self.charged.tokens:
            return 0
        num_tokens = num_bytes = 0
        if isinstance(error, RateLimited):
            num_tokens = self.num_wasted_tokens
        elif isinstance(error, ClientError):
            num_tokens, num_bytes = error.num_wasted_tokens, max(self.num_bytes, error.num_wasted_bytes)
        elif isinstance(error, ClientGone):
            num_bytes = self.num_bytes
        return min(num_tokens + num_bytes // BYTES_PER_TOKEN, self.limits.tokens.burst)


def _never_ran(error: BaseException | None) -> bool:
    return isinstance(error, asyncio.CancelledError) or (isinstance(error, GatewayError) and error.status in NEVER_RAN)


def _after_refund(limits: RateLimits, state: RateState, returned: Cost) -> RateState:
    requests_debt = limits.requests.charge(state.requests_debt, -returned.requests) if limits.requests else 0
    tokens_debt = limits.tokens.charge(state.tokens_debt, -returned.tokens) if limits.tokens else 0
    return RateState(requests_debt, tokens_debt)
