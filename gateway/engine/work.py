"""Queued work for the device: a Work is one request, and each of its windows is a Job."""

import asyncio
import math
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.embedding.embedder import ServiceClass
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


@dataclass(slots=True, eq=False)
class Job:
    """One queued window; `position` is its row in its work."""

    work: "Work"
    position: int
    window: Window

    @property
    def num_tokens(self) -> int:
        return len(self.window)


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
    done: asyncio.Future[None]
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
        self.pending = sorted((Job(self, *item) for item in enumerate(self.windows)), key=lambda job: job.num_tokens)
        self.remaining = len(self.pending)
        self.num_tokens = sum(map(len, self.windows))

    def deliver(self, job: Job, row: NDArray[np.float32]) -> None:
        self.rows[job.position] = row
        self.remaining -= 1
        if self.remaining == 0:
            self.finished_at = time.perf_counter()
            self.end(None)

    def end(self, error: BaseException | None) -> None:
        """Completes `done` from any thread. Idempotent; does nothing after the client left."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(resolve, self.done, error)

    @property
    def queue_seconds(self) -> float:
        return self.started_at - self.submitted_at

    @property
    def compute_seconds(self) -> float:
        return self.finished_at - self.started_at


def resolve(done: asyncio.Future[None], error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
