"""Limits by GCRA, in whole numbers: how much a caller has used, when there is room again, and what is left.

The leaky-bucket form of ITU-T I.371, annex A: a debt grows by what is charged, and shrinks with time. It is counted in shares of
1/`MINUTE` of a unit, of which `per_minute` are paid back each microsecond: nothing is ever rounded, so nothing drifts. The debt is
kept, not the moment at which it ends (GCRA's TAT): a clock that is set back an hour then stands still for a moment, and locks
nobody out for an hour.

A debt stays within the burst, but for a single cost above the burst: that fits while it and the debt are at most `max_cost`
together. So a limit of a million tokens a minute takes a request of 600,000, and then nothing until the debt is small again.
"""

from dataclasses import dataclass, field
from functools import lru_cache

from gateway.access.keys.key import Allowance

SECOND = 1_000_000  # microseconds, as Redis tells the time
MINUTE = 60 * SECOND
BURST_SHARE = 6  # of a minute's, where a key has no burst of its own
MIN_TOKENS_BURST = 300_000  # what OpenAI takes in one request, and clients fill: a smaller minute's limit is a burst as a whole


@dataclass(frozen=True, slots=True)
class Rate:
    """So much a minute, of which `burst` may come at once. Debts are in shares of a unit, waits in microseconds.

    `max_cost` is the largest single cost that ever fits, and so the largest debt: the burst, unless it is given.
    """

    per_minute: int
    burst: int
    max_cost: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_cost", max(self.max_cost, self.burst))

    def after(self, debt: int, elapsed: int) -> int:
        """What is left of a debt `elapsed` microseconds later; less than none have passed where the clock was set back."""
        return max(0, min(debt, self.max_cost * MINUTE) - max(0, elapsed) * self.per_minute)

    def charge(self, debt: int, cost: int) -> int:
        """`cost` units more; less than none are given back, and lift nobody above a full burst."""
        return self.clamp(debt + cost * MINUTE)

    def clamp(self, debt: int) -> int:
        return min(max(0, debt), self.max_cost * MINUTE)

    def wait(self, debt: int, cost: int) -> int:
        """How long until `cost` units fit: to the microsecond, 0 where they do now. A cost above `max_cost` never will."""
        ceiling = self.burst if cost <= self.burst else self.max_cost
        return max(0, rounded_up(debt + (cost - ceiling) * MINUTE, self.per_minute))

    def wait_for_any(self, debt: int, least: int) -> int:
        """0 where some cost fits that is `least` or more, of the burst or above it; else how long until `least` fits."""
        above = max(least, self.burst + 1)
        if above <= self.max_cost and self.wait(debt, above) == 0:
            return 0
        return self.wait(debt, least)

    def remaining(self, debt: int) -> int:
        """Whole units of the burst that fit now; none while a cost above the burst is paid back."""
        return max(0, (self.burst * MINUTE - debt) // MINUTE)

    def reset(self, debt: int) -> int:
        """How long until the whole burst is there again."""
        return rounded_up(debt, self.per_minute)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a caller is held to; None is without limit."""

    requests: Rate | None = None
    tokens: Rate | None = None
    max_concurrent_requests: int | None = None
    is_none: bool = field(init=False)

    def __post_init__(self) -> None:
        is_none = self.requests is None and self.tokens is None and self.max_concurrent_requests is None
        object.__setattr__(self, "is_none", is_none)


def requests_rate(per_minute: int | None, burst: int | None) -> Rate | None:
    if per_minute is None:
        return None
    return Rate(per_minute, burst or max(1, per_minute // BURST_SHARE))


def tokens_rate(per_minute: int | None, burst: int | None) -> Rate | None:
    """Without a burst of its own: a sixth of a minute's or 300,000, whichever is more; one request may have a whole minute's."""
    if per_minute is None:
        return None
    if burst is not None:
        return Rate(per_minute, burst)
    return Rate(per_minute, max(per_minute // BURST_SHARE, min(per_minute, MIN_TOKENS_BURST)), max_cost=per_minute)


@lru_cache(maxsize=1024)
def limits_of(own: Allowance, default: Allowance) -> RateLimits:
    """A key's own limits; where it has none, those of every key. A burst belongs to the rate it stands beside."""
    requests = own if own.requests_per_minute is not None else default
    tokens = own if own.tokens_per_minute is not None else default
    concurrent = own.max_concurrent_requests
    return RateLimits(
        requests_rate(requests.requests_per_minute, requests.requests_burst),
        tokens_rate(tokens.tokens_per_minute, tokens.tokens_burst),
        default.max_concurrent_requests if concurrent is None else concurrent,
    )


def rounded_up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
