"""A lease on the limits of a batch's key: only tokens are charged. A batch takes no slot, nor do its requests count a minute."""

import math
from types import TracebackType
from typing import Self

from gateway.access.keys.key import Caller
from gateway.access.limits.gcra import RateLimits
from gateway.access.limits.limiter import Limiter
from gateway.access.limits.local_store import Cost, RateLimitStoreUnavailable, RateState
from gateway.errors import RequestExceedsLimit


class BatchLease:
    """A `Lease` for requests that are answered together. `discount` is the share of their tokens that is free."""

    def __init__(self, limiter: Limiter, caller: Caller, *, discount: float) -> None:
        self.limiter = limiter
        self.lease = limiter.lease(caller)
        self.caller = caller
        self.discount = discount
        self.charged = 0
        self.num_bytes = 0

    @property
    def limits(self) -> RateLimits:
        return self.lease.limits

    @property
    def state(self) -> RateState | None:
        return self.lease.state

    @property
    def waited_seconds(self) -> float:
        return 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Refunds what was charged if the requests were not answered: they will be asked again, and charged again."""
        if error is not None and self.charged:
            try:
                await self.limiter.store.owe(self.caller.public_id, self.limits, Cost(tokens=-self.charged))
            except RateLimitStoreUnavailable:
                return

    async def charge(self, num_tokens: int, *, num_cached_tokens: int = 0) -> None:
        """Raises RateLimited, or RequestExceedsLimit if so many tokens can never come at once."""
        rate = self.limits.tokens
        if not self.limiter.settings.charge_cached:
            num_tokens -= num_cached_tokens
        cost = discounted(num_tokens, self.discount)
        if rate is None or not cost:
            return
        if cost > rate.max_cost:
            raise RequestExceedsLimit(cost, max_tokens=rate.max_cost, per_minute=rate.per_minute)
        asked = self.limiter.store.charge(self.caller.public_id, self.limits, cost)
        await self.lease.check(asked, Cost(tokens=cost), Cost(tokens=cost))
        self.charged = cost


def discounted(num_tokens: int, discount: float) -> int:
    """What tokens of a batch count as: rounded up."""
    return math.ceil(round(num_tokens * (1 - discount), 6))
