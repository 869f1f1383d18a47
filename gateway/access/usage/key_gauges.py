"""Gauges of keys that will soon stop working: the used share of a key's budget, and the time it expires.

Each key has its own series, as an operator must warn that key's owner; a count of such keys would not name them. A gauge has at
most MAX_KEYS series, the most urgent ones. Every gateway shows what it knows: if several share a store, the largest share is true.
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
from gateway.errors import KeyStoreUnavailable
from gateway.metrics import Metrics

MAX_KEYS = 1000
LOOK_SECONDS = 30.0  # between two scans of all keys: a scan of 100,000 takes 0.1 s, in a thread
SOON_SECONDS = 30 * 86_400.0  # a later expiry is not urgent

ByKey = dict[str, float]


class KeyGauges:
    """Used on the event loop only; the keys are scanned in a thread."""

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
            with suppress(KeyStoreUnavailable):  # the thread was too slow, as the machine is: the next scan will do
                await self.update()

    async def update(self) -> None:
        """Scans the keys and sets the gauges. A key that is no longer urgent loses its series."""
        keys, spent, now = self.key_snapshot.stored, dict(self.recorder.spent), self.wall_clock()
        self.metrics.access.show_by_key(self.metrics.access.key_budget_used, await self.worker.run(budgets_used, keys, spent, now))
        self.metrics.access.show_by_key(self.metrics.access.key_expires_at, await self.worker.run(expiries, keys, now))

    async def close(self) -> None:
        await self.background.close()
        self.worker.close()


def budgets_used(keys: Mapping[str, CachedKey], spent: Spent, now: float) -> ByKey:
    """The MAX_KEYS largest used shares of a budget. Requests in flight can take a share above 1."""
    hour = hour_of(now)
    shares = {}
    for public_id, key in keys.items():
        allowance = key.caller.allowance
        if allowance.token_budget is not None:
            used = spent.get((public_id, period_of(allowance.budget_period, hour)), 0)
            shares[public_id] = used / allowance.token_budget
    return {public_id: shares[public_id] for public_id in heapq.nlargest(MAX_KEYS, shares, key=shares.__getitem__)}


def expiries(keys: Mapping[str, CachedKey], now: float) -> ByKey:
    """The MAX_KEYS keys that expire next, in Unix seconds. An expired key no longer works and is not shown."""
    soon = {public_id: key.expires_at for public_id, key in keys.items() if now < key.expires_at < now + SOON_SECONDS}
    return {public_id: soon[public_id] for public_id in heapq.nsmallest(MAX_KEYS, soon, key=soon.__getitem__)}
