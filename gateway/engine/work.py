"""Queued work for the device: a Work is one request, and each of its windows is a Job."""

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.embedding.embedder import ServiceClass, StageSeconds
from gateway.engine.encoder import Window


class NoVector(Exception):
    """Window `position` of a work got no vector."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class NotFinite(NoVector):
    """The network gave a vector with NaN or infinity."""


class AllZero(NoVector):
    """The network gave a vector of zeros, which has no direction."""


class TooLarge(NoVector):
    """The device has too little memory for this window, even alone."""


class TooManyNumbers(NoVector):
    """With this window, the rows of its work have more numbers than a reply may have."""


class Completion(Protocol):
    """What hears of the end of a work, on the event loop: a future, or something that costs less."""

    def done(self) -> bool: ...

    def set_result(self, result: None, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...


class Job(Struct, eq=False):
    """One queued window; `position` is its row in its work."""

    work: "Work"
    position: int
    window: Window
    num_tokens: int


@dataclass(slots=True, eq=False)
class Work:
    """The windows of one request: embedded in any order and in any batches, answered together.

    `rows` has shape (number of windows, dimensions), float32; it is a list of arrays if a window has any number of rows. The event
    loop creates a Work; device threads deliver rows to it.
    `caller`, `weight` and `service_class` decide its share of the device. Raises ValueError if the weight is not above 0, or is
    infinite.
    """

    caller: str
    windows: list[Window]
    rows: NDArray[np.float32] | list[NDArray[np.float32]]
    loop: asyncio.AbstractEventLoop
    done: Completion
    weight: float = 1.0
    service_class: ServiceClass = "interactive"
    pending: list[Job] = field(init=False)  # shortest first, so that the batcher finds lengths by bisection
    remaining: int = field(init=False)
    num_tokens: int = field(init=False)  # of all pending jobs
    served_tokens: int = 0
    num_numbers: int = 0  # of the rows that came, if a window has any number of them
    submitted_at: float = field(default_factory=time.perf_counter)
    started_at: float = 0
    finished_at: float = 0

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"a weight of {self.weight}")
        self.pending = [Job(self, position, window, len(window.token_ids)) for position, window in enumerate(self.windows)]
        self.pending.sort(key=num_tokens_of)
        self.remaining = len(self.pending)
        self.num_tokens = sum([job.num_tokens for job in self.pending])

    def deliver(self, positions: list[int], rows: NDArray[np.float32]) -> None:
        """Takes the rows of some windows, or the rows of one window that has any number of them."""
        num_delivered = len(positions)
        if num_delivered == 1:
            self.rows[positions[0]] = rows if isinstance(self.rows, list) else rows[0]
        else:
            self.rows[positions] = rows  # type: ignore[call-overload]  # only an array gets several
        self.remaining -= num_delivered  # without a call in it, in which another device's thread might deliver

    def end(self, error: BaseException | None) -> None:
        """Completes `done` from any thread. Idempotent; does nothing after the client left."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(resolve, self.done, error)

    @property
    def stages(self) -> StageSeconds:
        return {"queue": self.queue_seconds, "compute": self.compute_seconds}

    @property
    def queue_seconds(self) -> float:
        return self.started_at - self.submitted_at

    @property
    def compute_seconds(self) -> float:
        return self.finished_at - self.started_at


num_tokens_of = attrgetter("num_tokens")


def end_finished(works: Iterable[Work]) -> None:
    """Completes those of the works that have all rows, by one call of each event loop: a call costs a thread 3 microseconds."""
    now = time.perf_counter()
    by_loop: dict[asyncio.AbstractEventLoop, list[Completion]] = {}
    for work in works:
        if work.remaining == 0:
            work.finished_at = now
            by_loop.setdefault(work.loop, []).append(work.done)
    for loop, futures in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve_all, futures)


def _resolve_all(futures: list[Completion]) -> None:
    """If one raises, which is a defect for the event loop to log, the others hear of their end all the same."""
    for place, future in enumerate(futures, start=1):
        try:
            resolve(future, None)
        except Exception:
            asyncio.get_running_loop().call_soon(_resolve_all, futures[place:])
            raise


def resolve(done: Completion, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
