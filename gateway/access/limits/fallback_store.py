"""A fallback from the shared rate-limit store to a local one: during an outage each gateway applies the whole limit by itself.

An outage begins with empty local state. After it, a caller's first request charges the shared store with what the caller used
locally, so no caller gets a second burst. The shares of several gateways add up there, to at most a full burst. A request is
refunded, and its concurrency slot counted, in the store where it entered, even if the other store is in use by then.
"""

from collections.abc import Callable
from dataclasses import replace

from gateway.access.limits.gcra import MINUTE, SECOND, Rate, RateLimits, rounded_up
from gateway.access.limits.local_store import Cost, LocalRateLimitStore, RateLimitStore, RateLimitStoreUnavailable, RateState


class FallbackRateLimitStore:
    """A RateLimitStore that never raises RateLimitStoreUnavailable. `on_local` is called for each call answered locally."""

    def __init__(self, shared: RateLimitStore, local: LocalRateLimitStore, *, on_local: Callable[[], None]) -> None:
        self.shared = shared
        self.local = local
        self.on_local = on_local
        self.here: set[str] = set()  # leases that the local store has

    async def start(self) -> None:
        await self.shared.start()

    @property
    def outage(self) -> str | None:
        return self.shared.outage

    @property
    def is_alive(self) -> bool:
        return self.shared.is_alive

    async def enter(self, caller: str, limits: RateLimits, lease: str, *, min_tokens: int) -> RateState:
        most, num_here = limits.max_concurrent_requests, self.local.num_running(caller)
        try:
            await self.settle(caller, limits)
            if most is not None and num_here >= most:
                return RateState(refused="concurrency", wait=SECOND)
            left = limits if most is None or not num_here else replace(limits, max_concurrent_requests=most - num_here)
            return await self.shared.enter(caller, left, lease, min_tokens=min_tokens)
        except RateLimitStoreUnavailable:
            self.on_local()
            state = await self.local.enter(caller, limits, lease, min_tokens=min_tokens)
            if state.refused is None:
                self.here.add(lease)
            return state

    async def charge(self, caller: str, limits: RateLimits, num_tokens: int) -> RateState:
        try:
            await self.settle(caller, limits)
            return await self.shared.charge(caller, limits, num_tokens)
        except RateLimitStoreUnavailable:
            self.on_local()
            return await self.local.charge(caller, limits, num_tokens)

    async def owe(self, caller: str, limits: RateLimits, cost: Cost) -> None:
        try:
            await self.shared.owe(caller, limits, cost)
        except RateLimitStoreUnavailable:
            await self.local.owe(caller, limits, cost)

    def leave(self, caller: str, limits: RateLimits, lease: str, returned: Cost) -> None:
        if lease in self.here:
            self.here.remove(lease)
            self.local.leave(caller, limits, lease, returned)
        else:
            self.shared.leave(caller, limits, lease, returned)

    async def settle(self, caller: str, limits: RateLimits) -> None:
        """Charges the shared store for local use. Raises RateLimitStoreUnavailable; the debt is then kept."""
        debts = self.local.debts(caller, limits) if self.shared.outage is None else None
        if debts is None:
            return
        self.local.charge_debts(caller, limits, -debts[0], -debts[1])  # before the await, or two requests would charge it
        try:
            await self.shared.owe(caller, limits, Cost(units(limits.requests, debts[0]), units(limits.tokens, debts[1])))
        except BaseException:
            self.local.charge_debts(caller, limits, *debts)
            raise

    async def close(self) -> None:
        await self.shared.close()


def units(rate: Rate | None, debt: int) -> int:
    return rounded_up(debt, MINUTE) if rate is not None else 0
