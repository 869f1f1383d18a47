"""Rate-limit state in this process, for one gateway. `redis_store` shares it among several."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.access.limits.gcra import MINUTE, SECOND, Rate, RateLimits

MAX_METERS = 100_000  # 30 MB; beyond it the least recently used caller starts afresh
Refusal = Literal["requests", "tokens", "concurrency"]


class RateLimitStoreUnavailable(Exception):
    """The store cannot be reached; `reason` is for operators."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Cost:
    """The units to charge: to all limits, or to none of them."""

    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class RateState:
    """A caller's state after a charge. If `refused`, nothing was charged. `wait` is in microseconds."""

    requests_debt: int = 0
    tokens_debt: int = 0
    refused: Refusal | None = None
    wait: int = 0


class RateLimitStore(Protocol):
    """The interface of rate-limit stores. Used on the event loop only."""

    async def start(self) -> None:
        """Never fails: the server may become available later."""

    async def enter(self, caller: str, limits: RateLimits, lease: str, *, min_tokens: int) -> RateState:
        """Charges one request and takes a concurrency slot under the unique name `lease`, both or neither.

        Also refuses if neither `min_tokens` nor any larger number would fit; tokens are not charged yet. Raises
        RateLimitStoreUnavailable.
        """

    async def charge(self, caller: str, limits: RateLimits, num_tokens: int) -> RateState:
        """Charges `num_tokens`, all or none. Raises RateLimitStoreUnavailable."""

    def leave(self, caller: str, limits: RateLimits, lease: str, returned: Cost) -> None:
        """Releases the slot, and refunds `returned` for work that never ran. Never waits, never fails.

        A negative refund charges for refused work, whether it fits or not.
        """

    async def owe(self, caller: str, limits: RateLimits, cost: Cost) -> None:
        """Charges what was used in another store, whether it fits or not. Raises RateLimitStoreUnavailable."""

    @property
    def outage(self) -> str | None:
        """Why the store is unavailable; None while it is available."""

    @property
    def is_alive(self) -> bool:
        """False once only a restart of the process can bring the store back."""

    async def close(self) -> None: ...


@dataclass(slots=True)
class Meter:
    requests_debt: int = 0
    tokens_debt: int = 0
    at: int = 0  # microseconds
    num_running: int = 0


class LocalRateLimitStore:
    """A RateLimitStore in memory. `clock` is in seconds, from any zero, as `time.monotonic`."""

    is_alive = True
    outage: str | None = None

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.meters: OrderedDict[str, Meter] = OrderedDict()  # least recently used first

    async def start(self) -> None:
        pass

    async def enter(self, caller: str, limits: RateLimits, lease: str, *, min_tokens: int) -> RateState:  # noqa: ARG002 - counts leases without their names
        meter = self.meter(caller, limits)
        most = limits.max_concurrent_requests
        if most is not None and meter.num_running >= most:
            return RateState(meter.requests_debt, meter.tokens_debt, "concurrency", SECOND)
        state = self.take(meter, limits, Cost(requests=1), min_tokens)
        if state.refused is None:
            meter.num_running += 1
        return state

    async def charge(self, caller: str, limits: RateLimits, num_tokens: int) -> RateState:
        return self.take(self.meter(caller, limits), limits, Cost(tokens=num_tokens), num_tokens)

    def leave(self, caller: str, limits: RateLimits, lease: str, returned: Cost) -> None:  # noqa: ARG002
        meter = self.meter(caller, limits)
        meter.num_running = max(0, meter.num_running - 1)  # a meter that started afresh has 0
        if limits.requests is not None:
            meter.requests_debt = limits.requests.charge(meter.requests_debt, -returned.requests)
        if limits.tokens is not None:
            meter.tokens_debt = limits.tokens.charge(meter.tokens_debt, -returned.tokens)

    async def owe(self, caller: str, limits: RateLimits, cost: Cost) -> None:
        self.charge_debts(caller, limits, cost.requests * MINUTE, cost.tokens * MINUTE)

    def num_running(self, caller: str) -> int:
        """The number of the caller's leases in this store."""
        meter = self.meters.get(caller)
        return meter.num_running if meter is not None else 0

    def debts(self, caller: str, limits: RateLimits) -> tuple[int, int] | None:
        """The caller's debts of requests and tokens, in shares of a unit; None if both are 0."""
        if caller not in self.meters:
            return None
        meter = self.meter(caller, limits)
        return (meter.requests_debt, meter.tokens_debt) if meter.requests_debt or meter.tokens_debt else None

    def charge_debts(self, caller: str, limits: RateLimits, requests_debt: int, tokens_debt: int) -> None:
        """Adds to a caller's debts; negative numbers reduce them."""
        meter = self.meter(caller, limits)
        if limits.requests is not None:
            meter.requests_debt = limits.requests.clamp(meter.requests_debt + requests_debt)
        if limits.tokens is not None:
            meter.tokens_debt = limits.tokens.clamp(meter.tokens_debt + tokens_debt)

    def meter(self, caller: str, limits: RateLimits) -> Meter:
        """Returns the caller's meter, with its debts brought up to this moment."""
        now = int(self.clock() * SECOND)
        meter = self.meters.get(caller)
        if meter is None:
            meter = self.meters[caller] = Meter(at=now)
            if len(self.meters) > MAX_METERS:
                self.meters.popitem(last=False)
            return meter
        self.meters.move_to_end(caller)
        elapsed, meter.at = now - meter.at, now
        meter.requests_debt = limits.requests.after(meter.requests_debt, elapsed) if limits.requests is not None else 0
        meter.tokens_debt = limits.tokens.after(meter.tokens_debt, elapsed) if limits.tokens is not None else 0
        return meter

    def take(self, meter: Meter, limits: RateLimits, cost: Cost, min_tokens: int) -> RateState:
        """Charges the cost, or refuses with the longer of the two waits: after it both fit."""
        is_known = min_tokens <= cost.tokens  # else the cost may turn out to be higher
        wait_requests = wait_for(limits.requests, meter.requests_debt, cost.requests)
        wait_tokens = wait_for(limits.tokens, meter.tokens_debt, min_tokens, is_known=is_known)
        if wait_requests or wait_tokens:
            refused: Refusal = "requests" if wait_requests >= wait_tokens else "tokens"
            return RateState(meter.requests_debt, meter.tokens_debt, refused, max(wait_requests, wait_tokens))
        if limits.requests is not None:
            meter.requests_debt = limits.requests.charge(meter.requests_debt, cost.requests)
        if limits.tokens is not None:
            meter.tokens_debt = limits.tokens.charge(meter.tokens_debt, cost.tokens)
        return RateState(meter.requests_debt, meter.tokens_debt)

    async def close(self) -> None:
        pass


def wait_for(rate: Rate | None, debt: int, cost: int, *, is_known: bool = True) -> int:
    if rate is None or not cost:
        return 0
    return rate.wait(debt, cost) if is_known else rate.wait_for_any(debt, cost)
