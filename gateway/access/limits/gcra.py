"""GCRA in whole numbers: how much a caller has used, when there is room again, and what is left.

This is the leaky-bucket form of ITU-T I.371, annex A. A debt (the bucket's level) grows by each charge and shrinks with time. Its
shares are 1/`MINUTE` of a unit, and `per_minute` of them are paid back each microsecond: nothing is rounded, so nothing drifts. We
store the debt, not the time at which it ends (GCRA's TAT): if the clock is set back an hour, it only stands still for a moment, and
no caller is locked out for an hour.

A debt is at most the burst, with one exception: a single cost above the burst fits if it and the debt are at most `max_cost`
together. So a limit of a million tokens a minute takes a request of 600,000, and then nothing until the debt is small again.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from gateway.access.keys.key import Allowance

SECOND = 1_000_000  # microseconds, the unit of Redis' clock
MINUTE = 60 * SECOND
BURST_SHARE = 6  # without a burst of its own, a key has a sixth of a minute's units
MIN_TOKENS_BURST = 300_000  # OpenAI's limit for one request, which clients fill. A smaller limit a minute may all come at once


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate of `per_minute` units, of which `burst` may come at once. Debts are in shares of a unit, waits in microseconds.

    `max_cost` is the largest single cost that can fit, and so the largest debt: by default the burst.
    """

    per_minute: int
    burst: int
    max_cost: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_cost", max(self.max_cost, self.burst))

    def after(self, debt: int, elapsed: int) -> int:
        """The debt `elapsed` microseconds later. A negative `elapsed` (the clock was set back) counts as 0."""
        return max(0, min(debt, self.max_cost * MINUTE) - max(0, elapsed) * self.per_minute)

    def charge(self, debt: int, cost: int) -> int:
        """The debt after `cost` units more. A negative cost is a refund; the debt is never below 0."""
        return self.clamp(debt + cost * MINUTE)

    def clamp(self, debt: int) -> int:
        return min(max(0, debt), self.max_cost * MINUTE)

    def wait(self, debt: int, cost: int) -> int:
        """Microseconds until `cost` units fit, 0 if they fit now. A cost above `max_cost` never fits."""
        ceiling = self.burst if cost <= self.burst else self.max_cost
        return max(0, rounded_up(debt + (cost - ceiling) * MINUTE, self.per_minute))

    def wait_for_any(self, debt: int, least: int) -> int:
        """0 if any cost of `least` or more fits now, within the burst or above it; else microseconds until `least` fits."""
        above = max(least, self.burst + 1)
        if above <= self.max_cost and self.wait(debt, above) == 0:
            return 0
        return self.wait(debt, least)

    def remaining(self, debt: int) -> int:
        """Whole units of the burst that fit now; 0 while a cost above the burst is paid back."""
        return max(0, (self.burst * MINUTE - debt) // MINUTE)

    def reset(self, debt: int) -> int:
        """Microseconds until the whole burst fits again."""
        return rounded_up(debt, self.per_minute)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """A caller's limits; None is without limit."""

    requests: Rate | None = None
    tokens: Rate | None = None
    max_concurrent_requests: int | None = None
    is_none: bool = field(init=False)

    def __post_init__(self) -> None:
        is_none = self.requests is None and self.tokens is None and self.max_concurrent_requests is None
        object.__setattr__(self, "is_none", is_none)


def _requests_rate(per_minute: int | None, burst: int | None) -> Rate | None:
    if per_minute is None:
        return None
    return Rate(per_minute, burst or max(1, per_minute // BURST_SHARE))


def tokens_rate(per_minute: int | None, burst: int | None) -> Rate | None:
    """The default burst is a sixth of a minute's tokens or 300,000 if that is more; one request may take a whole minute's."""
    if per_minute is None:
        return None
    if burst is not None:
        return Rate(per_minute, burst)
    return Rate(per_minute, max(per_minute // BURST_SHARE, min(per_minute, MIN_TOKENS_BURST)), max_cost=per_minute)


@lru_cache(maxsize=1024)
def limits_of(own: Allowance, default: Allowance) -> RateLimits:
    """A key's own limits, or `default` for those that it does not set. A burst is taken from the same place as its rate."""
    requests = own if own.requests_per_minute is not None else default
    tokens = own if own.tokens_per_minute is not None else default
    concurrent = own.max_concurrent_requests
    return RateLimits(
        _requests_rate(requests.requests_per_minute, requests.requests_burst),
        tokens_rate(tokens.tokens_per_minute, tokens.tokens_burst),
        default.max_concurrent_requests if concurrent is None else concurrent,
    )


def rounded_up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
