"""Reads the store for a key that the snapshot does not know: a key just created elsewhere works at once.

Single flight: one query answers all requests that wait. It reads the rows that changed since the last read, not one key, so its
time does not show whether an id exists. GCRA limits the queries of all callers together, and a negative cache remembers keys that
were not found, so clients without a key cannot overload the store.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.background import launch

ASKS_A_SECOND = 10.0
BURST = 5
WAIT_SECONDS = 1.0  # for the store's answer; then the key is refused as unknown
REMEMBERED_SECONDS = 60.0
MAX_REMEMBERED = 10_000  # 1 MB


class UnknownKeyLookup:
    """Used on the event loop, except `begun`."""

    def __init__(self, ask: Callable[[], Awaitable[bool]], clock: Callable[[], float] = time.monotonic) -> None:
        """`ask` reads the changes from the store. It calls `begun` when it begins, and returns whether the store answered."""
        self.ask = ask
        self.clock = clock
        self.remembered: OrderedDict[bytes, float] = OrderedDict()  # digests of presented keys, each until a time
        self.arrival = 0.0  # GCRA's theoretical arrival time
        self.coming: asyncio.Task[bool] | None = None  # a query that has not begun: new requests may wait for it

    def is_remembered(self, digest: bytes) -> bool:
        until = self.remembered.get(digest)
        return until is not None and self.clock() < until

    def remember(self, digest: bytes) -> None:
        self.remembered[digest] = self.clock() + REMEMBERED_SECONDS
        self.remembered.move_to_end(digest)
        if len(self.remembered) > MAX_REMEMBERED:
            self.remembered.popitem(last=False)

    async def look(self) -> bool:
        """Waits for a query that begins after this call. Returns whether the store answered in time."""
        if self.coming is None:
            self.coming = launch(self.ask_store(), name="unknown-keys")
        with suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self.coming), WAIT_SECONDS)
        return False

    async def ask_store(self) -> bool:
        now, interval = self.clock(), 1 / ASKS_A_SECOND
        self.arrival = max(self.arrival, now) + interval
        await asyncio.sleep(max(0.0, self.arrival - now - BURST * interval))
        try:
            return await self.ask()
        finally:
            if self.coming is asyncio.current_task():  # the query never began
                self.coming = None

    def begun(self) -> None:
        """Marks the query as begun: it can miss later changes, so later requests need a new one. Callable from any thread."""
        self.coming = None

    async def close(self) -> None:
        if self.coming is not None:
            self.coming.cancel()
            await asyncio.gather(self.coming, return_exceptions=True)
