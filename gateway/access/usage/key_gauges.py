"""Keys that will soon stop working, as gauges: what share of its budget each has used, and when it expires.

By key, since whoever is warned must tell that key's owner; a count would only say that there is one. At most MAX_KEYS of each, the
most urgent first. Every gateway shows what it knows: where several share a store, the largest share is the true one.
"""

import asyncio
import heapq
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from gateway.access.keys.cached_key import CachedKey
from gateway.access.keys.snapshot import KeySnapshot
from gateway.access.usage.period import hour_of, period_of
from gateway.access.usage.recorder import UsageRecorder
from gateway.access.usage.store import Spent
from gateway.access.worker import WorkerThread
from gateway.background import BackgroundTask
from gateway.errors import StoreAway
from gateway.metrics import Metrics

MAX_KEYS = 1000
LOOK_SECONDS = 30.0  # between two looks at all keys: of 100,000 one takes 0.1 s, in a thread
SOON_SECONDS = 30 * 86_400.0  # an expiry further away is nobody's concern yet

ByKey = dict[str, float]


class KeyGauges:
    """Used on the event loop alone; the keys are looked through in a thread."""

    def __init__(
        self, key_snapshot: KeySnapshot, recorder: UsageRecorder, metrics: Metrics, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.key_snapshot = key_snapshot
        self.recorder = recorder
        self.metrics = metrics
        self.wall_clock = wall_clock
        self.worker = WorkerThread("key-gauges")
        self.background = BackgroundTask("key-gauges", self.watch)

    async def start(self) -> None:
        await self.update()
        self.background.start()

    @property
    def is_running(self) -> bool:
        return self.background.is_running

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(StoreAway):  # the thread was too slow, on a machine that is: the next look will do
                await self.update()

    async def update(self) -> None:
        """Shows the keys that matter now; a key that no longer does loses its series."""
        keys, spent, now = self.key_snapshot.stored, dict(self.recorder.spent), self.wall_clock()
        self.metrics.access.show_by_key(self.metrics.access.key_budget_used, await self.worker.run(budgets_used, keys, spent, now))
        self.metrics.access.show_by_key(self.metrics.access.key_expires_at, await self.worker.run(expiries, keys, now))

    async def close(self) -> None:
        await self.background.close()
        self.worker.close()


def budgets_used(keys: Mapping[str, CachedKey], spent: Spent, now: float) -> ByKey:
    """Those that have used the largest share of theirs. More than 1 is what requests under way took beyond it."""
    hour = hour_of(now)
    shares = {}
    for public_id, key in keys.items():
        allowance = key.caller.allowance
        if allowance.token_budget is not None:
            used = spent.get((public_id, period_of(allowance.budget_period, hour)), 0)
            shares[public_id] = used / allowance.token_budget
    return {public_id: shares[public_id] for public_id in heapq.nlargest(MAX_KEYS, shares, key=shares.__getitem__)}


def expiries(keys: Mapping[str, CachedKey], now: float) -> ByKey:
    """Those that expire next, in Unix seconds; one that has expired works no longer and is not shown."""
    soon = {public_id: key.expires_at for public_id, key in keys.items() if now < key.expires_at < now + SOON_SECONDS}
    return {public_id: soon[public_id] for public_id in heapq.nsmallest(MAX_KEYS, soon, key=soon.__getitem__)}
