"""What callers have used of their limits, kept in this process: for one gateway alone. `redis_store` keeps it for several."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.access.limits.gcra import MINUTE, SECOND, Rate, RateLimits

MAX_METERS = 100_000  # 30 MB; beyond it the caller that stayed away longest begins anew
Refusal = Literal["requests", "tokens", "concurrency"]


class RateLimitStoreUnavailable(Exception):
    """Nobody can tell what a caller has used; `reason` is for operators."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Cost:
    """What is charged, of all limits or of none."""

    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class RateState:
    """A caller's meters after a charge that was made, or `refused`; then nothing was charged. `wait` is in microseconds."""

    requests_debt: int = 0
    tokens_debt: int = 0
    refused: Refusal | None = None
    wait: int = 0


class RateLimitStore(Protocol):
    """Used on the event loop alone."""

    async def start(self) -> None:
        """Never fails: whoever keeps the meters may come later."""

    async def enter(self, caller: str, limits: RateLimits, lease: str, *, min_tokens: int) -> RateState:
        """Charges one request and takes a place among the caller's `lease`s, whose names are unique; all of it or nothing.

        Refused too where there is no room for `min_tokens` or any number above, which are not charged yet. Raises
        RateLimitStoreUnavailable.
        """

    async def charge(self, caller: str, limits: RateLimits, num_tokens: int) -> RateState:
        """Raises RateLimitStoreUnavailable."""

    def leave(self, caller: str, limits: RateLimits, lease: str, returned: Cost) -> None:
        """Frees the place, and gives back what was charged for work that never ran. Never waits, never fails.

        Less than none is charged, whether there is room for it or not: refused work.
        """

    async def owe(self, caller: str, limits: RateLimits, cost: Cost) -> None:
        """Charges what was used elsewhere, whether there is room for it or not. Raises RateLimitStoreUnavailable."""

    @property
    def outage(self) -> str | None:
        """Why nobody can tell at present what callers have used; None while somebody can."""

    @property
    def is_alive(self) -> bool:
        """False once no more can be expected of them without a restart."""

    async def close(self) -> None: ...


@dataclass(slots=True)
class Meter:
    requests_debt: int = 0
    tokens_debt: int = 0
    at: int = 0  # microseconds
    num_running: int = 0


class LocalRateLimitStore:
    """`clock` is in seconds, as `time.monotonic`, whose zero may be anywhere."""

    is_alive = True
    outage: str | None = None

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.meters: OrderedDict[str, Meter] = OrderedDict()  # least recently used first

    async def start(self) -> None:
        pass

    async def enter(self, caller: str, limits: RateLimits, lease: str, *, min_tokens: int) -> RateState:  # noqa: ARG002 - the number will do
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
        meter.num_running = max(0, meter.num_running - 1)  # one that began anew knows of none
        if limits.requests is not None:
            meter.requests_debt = limits.requests.charge(meter.requests_debt, -returned.requests)
        if limits.tokens is not None:
            meter.tokens_debt = limits.tokens.charge(meter.tokens_debt, -returned.tokens)

    async def owe(self, caller: str, limits: RateLimits, cost: Cost) -> None:
        self.charge_debts(caller, limits, cost.requests * MINUTE, cost.tokens * MINUTE)

    def num_running(self, caller: str) -> int:
        """How many of its visits have a place here."""
        meter = self.meters.get(caller)
        return meter.num_running if meter is not None else 0

    def debts(self, caller: str, limits: RateLimits) -> tuple[int, int] | None:
        """What a caller owes here, of requests and of tokens, in shares of a unit; None where that is nothing."""
        if caller not in self.meters:
            return None
        meter = self.meter(caller, limits)
        return (meter.requests_debt, meter.tokens_debt) if meter.requests_debt or meter.tokens_debt else None

    def charge_debts(self, caller: str, limits: RateLimits, requests_debt: int, tokens_debt: int) -> None:
        """Adds to what a caller owes; less than nothing takes away."""
        meter = self.meter(caller, limits)
        if limits.requests is not None:
            meter.requests_debt = limits.requests.clamp(meter.requests_debt + requests_debt)
        if limits.tokens is not None:
            meter.tokens_debt = limits.tokens.clamp(meter.tokens_debt + tokens_debt)

    def meter(self, caller: str, limits: RateLimits) -> Meter:
        """As it stands at this moment."""
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
        """The longer wait is the one that is told: after it there is room for both."""
        is_known = min_tokens <= cost.tokens  # else more may turn out to be asked for
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
