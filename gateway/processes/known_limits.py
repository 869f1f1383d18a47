"""What a front knows of its callers' limits: whether a request needs a call of its own to enter its lease.

For a caller that is far from its limits the call that embeds enters the lease, too: one message and no other wait. One whose state
is not known, or that has used half of a burst, is entered before its body is read: what it sends beyond its limits stays free of
work. The engine process counts in either case, so limits are exact.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from gateway.access.limits.gcra import MINUTE, Rate, RateLimits
from gateway.access.limits.local_store import RateState

KNOWN_SECONDS = 1.0  # other fronts charge the same caller meanwhile
MAX_KNOWN = 10_000  # 3 MB; beyond it the caller that was told of first is not known any more


class KnownLimits:
    """Used on the event loop only. `clock` is in seconds, from any zero."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.told: OrderedDict[str, tuple[RateState, float]] = OrderedDict()  # by the caller's public id

    def tell(self, caller: str, state: RateState) -> None:
        self.told[caller] = state, self.clock() + KNOWN_SECONDS
        self.told.move_to_end(caller)
        if len(self.told) > MAX_KNOWN:
            self.told.popitem(last=False)

    def has_room(self, caller: str, limits: RateLimits) -> bool:
        """Whether a further request surely fits. A limit of concurrent requests is a queue, and must be entered first."""
        if limits.max_concurrent_requests is not None or (told := self.told.get(caller)) is None:
            return False
        state, until = told
        if self.clock() >= until:
            return False
        return _is_half_left(limits.requests, state.requests_debt) and _is_half_left(limits.tokens, state.tokens_debt)


def _is_half_left(rate: Rate | None, debt: int) -> bool:
    return rate is None or 2 * debt <= rate.burst * MINUTE
