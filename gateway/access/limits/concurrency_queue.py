"""A FIFO queue before each caller's limit of concurrent requests: a burst waits for a moment instead of getting a 429.

SDKs that are refused together retry together: with a limit of 4 and 64 requests at once, six SDKs lost 20 to 48 of the 64 for
good with their default retries. Waiters are bounded in number and time. They have no body in memory and no permit of Admission.
They leave with their client, and at the drain. A request that does not fit gets a Retry-After by the queue's length, with jitter.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

from gateway.config import LimitSettings
from gateway.errors import MAX_RETRY_AFTER_SECONDS, ClientGone, Overloaded, RateLimited

FORGET = 0.2  # the weight of the latest request in the mean of their seconds
MIN_RETRY_SECONDS = 1.0
NO_LIMIT = 1_000_000

OnDisconnect = list[Callable[[], None]]


@dataclass(slots=True)
class Line:
    """One caller's queue: requests that run, and requests that wait, the longest first."""

    most: int
    has_own_limit: bool = False
    num_running: int = 0
    mean_seconds: float = 0.0
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)


class ConcurrencyQueue:
    """Used on the event loop only. Keeps a Line only for callers with requests in flight."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, draw: Callable[[], float] = random.random) -> None:
        self.clock = clock
        self.draw = draw
        self.lines: dict[str, Line] = {}
        self.pauses: set[asyncio.Future[None]] = set()
        self.num_waiting = 0
        self.is_closed = False

    async def enter(
        self,
        caller: str,
        most: int,
        settings: LimitSettings,
        on_disconnect: OnDisconnect | None = None,
        *,
        has_own_limit: bool = False,
    ) -> None:
        """Acquires one of the caller's `most` slots, and waits for it if needed; `leave` releases it.

        Raises RateLimited if the queue is full or no slot is free in time, ClientGone, and Overloaded at the drain.
        """
        line = self.lines.setdefault(caller, Line(most))
        line.has_own_limit = has_own_limit
        self.change_limit(line, most)  # an admin may have changed it
        if line.num_running < most and not line.waiters:
            line.num_running += 1
            return
        if self.is_closed:
            raise Overloaded("It is shutting down.")
        if len(line.waiters) >= settings.max_waiting_per_key or self.num_waiting >= settings.max_waiting:
            raise self.refusal(caller)
        await self.wait(caller, line, settings.max_wait_seconds, on_disconnect)

    async def wait(self, caller: str, line: Line, max_wait_seconds: float, on_disconnect: OnDisconnect | None) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.waiters.append(turn)
        try:
            await self.wait_for(turn, max_wait_seconds, on_disconnect)
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(caller)  # its turn came while it was cancelled
            if isinstance(error, TimeoutError):
                raise self.refusal(caller) from None
            raise
        finally:
            if turn in line.waiters:
                line.waiters.remove(turn)

    async def pause(self, seconds: float, on_disconnect: OnDisconnect | None = None) -> None:
        """Waits before the store is asked again. Raises ClientGone, and Overloaded at the drain."""
        if self.is_closed:
            raise Overloaded("It is shutting down.")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pauses.add(turn)
        try:
            await self.wait_for(turn, seconds, on_disconnect)
        except TimeoutError:
            return
        finally:
            self.pauses.discard(turn)

    async def wait_for(self, turn: asyncio.Future[None], seconds: float, on_disconnect: OnDisconnect | None) -> None:
        """Raises TimeoutError, ClientGone if the client leaves, and what else is set on `turn`."""

        def on_gone() -> None:
            if not turn.done():
                turn.set_exception(ClientGone())

        self.num_waiting += 1
        if on_disconnect is not None:
            on_disconnect.append(on_gone)
        try:
            async with asyncio.timeout(seconds):
                await turn
        finally:
            self.num_waiting -= 1
            if on_disconnect is not None:
                on_disconnect.remove(on_gone)

    def leave(self, caller: str, *, seconds: float | None = None) -> None:
        """Releases a slot, to the longest waiter. `seconds` is how long the request took, None if it was not served."""
        line = self.lines[caller]
        line.num_running -= 1
        if seconds is not None:
            line.mean_seconds += (seconds - line.mean_seconds) * (FORGET if line.mean_seconds else 1.0)
        self.wake(line)
        if not line.num_running and not line.waiters:
            del self.lines[caller]

    def change_default(self, most: int | None) -> None:
        """Applies a new limit, of a reload, to the callers without one of their own. None is no limit."""
        for line in self.lines.values():
            if not line.has_own_limit:
                self.change_limit(line, NO_LIMIT if most is None else most)

    def change_limit(self, line: Line, most: int) -> None:
        line.most = most
        self.wake(line)

    def wake(self, line: Line) -> None:
        """Gives free slots to the longest waiters."""
        while line.waiters and line.num_running < line.most:
            turn = line.waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                line.num_running += 1

    def refusal(self, caller: str) -> RateLimited:
        """A 429 with Retry-After by the queue's length; `retry-after-ms`, which OpenAI's SDKs prefer, adds up to 100 % jitter."""
        line = self.lines.get(caller) or Line(most=1)
        ahead = line.num_running + len(line.waiters)
        wait_seconds = max(MIN_RETRY_SECONDS, ahead * line.mean_seconds / line.most)
        spread_seconds = min(wait_seconds * (1 + self.draw()), MAX_RETRY_AFTER_SECONDS)
        limit = f"concurrent requests: limit {line.most}"
        return RateLimited("requests", limit, wait_seconds=wait_seconds, retry_after_ms=round(1000 * spread_seconds))

    def close(self) -> None:
        """Starts the drain: all waiters are refused."""
        self.is_closed = True
        for turn in [*self.pauses, *chain.from_iterable(line.waiters for line in self.lines.values())]:
            if not turn.done():
                turn.set_exception(Overloaded("It is shutting down."))
