"""When the store is asked about a key that the snapshot does not know, so that one just made elsewhere works at once.

What is asked for is whatever changed, and never a word of what was presented: one question answers all who wait for it, and takes
the same time whether an id exists or not. GCRA spaces the questions out for all callers together, and a key that was not there is
remembered, so strangers cannot make the store work.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.background import launch

ASKS_A_SECOND = 10.0
BURST = 5
WAIT_SECONDS = 1.0  # for the store's answer; a caller is then refused as one the snapshot does not know
REMEMBERED_SECONDS = 60.0
MAX_REMEMBERED = 10_000  # 1 MB


class UnknownKeyLookup:
    """`ask` reads the changes from the store; it calls `begun` when it begins. Used on the event loop, but for `begun`."""

    def __init__(self, ask: Callable[[], Awaitable[bool]], clock: Callable[[], float] = time.monotonic) -> None:
        """`ask` tells whether the store answered."""
        self.ask = ask
        self.clock = clock
        self.remembered: OrderedDict[bytes, float] = OrderedDict()  # digests of presented keys, and until when
        self.arrival = 0.0  # GCRA's theoretical arrival time
        self.coming: asyncio.Task[bool] | None = None  # a question that has not begun: who comes now may wait for it

    def is_remembered(self, digest: bytes) -> bool:
        until = self.remembered.get(digest)
        return until is not None and self.clock() < until

    def remember(self, digest: bytes) -> None:
        self.remembered[digest] = self.clock() + REMEMBERED_SECONDS
        self.remembered.move_to_end(digest)
        if len(self.remembered) > MAX_REMEMBERED:
            self.remembered.popitem(last=False)

    async def look(self) -> bool:
        """Returns once the store was asked, from now on; False where it did not answer in time."""
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
            if self.coming is asyncio.current_task():  # it never began
                self.coming = None

    def begun(self) -> None:
        """From now on what changes is not seen by the question that was coming. On any thread."""
        self.coming = None

    async def close(self) -> None:
        if self.coming is not None:
            self.coming.cancel()
            await asyncio.gather(self.coming, return_exceptions=True)
