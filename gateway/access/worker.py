"""A worker thread for blocking database calls, supervised by heartbeats.

A blocked thread cannot be ended. If its work gives no heartbeat in time, the thread is abandoned: the caller gets
KeyStoreUnavailable, and a new thread replaces it. At most MAX_ABANDONED threads are abandoned at once; beyond that no work starts
until one returns.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from gateway.background import BackgroundThread
from gateway.errors import KeyStoreUnavailable

STUCK_SECONDS = 8.0  # for work that sends no heartbeat of its own
WAIT_SECONDS = 30.0  # in the queue, behind other work
LOOK_SECONDS = 0.5  # between checks for an overdue heartbeat
MAX_ABANDONED = 4

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

here = threading.local()


class WorkerJob:
    """One piece of work. `due` is the deadline of its next heartbeat; after it the caller gets KeyStoreUnavailable."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Callable[[], Any]) -> None:
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.work = work
        self.due = time.monotonic() + WAIT_SECONDS
        self.has_begun = False

    def do(self) -> None:
        if self.future.done():
            return
        self.has_begun, here.job = True, self
        alive()
        try:
            result = self.work()
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            self.deliver(self.future.set_exception, error)
        else:
            self.deliver(self.future.set_result, result)
        finally:
            here.job = None

    def deliver(self, way: Callable[..., None], what: object) -> None:
        with suppress(RuntimeError):  # the loop has ended, and no caller waits
            self.loop.call_soon_threadsafe(lambda: None if self.future.done() else way(what))


async def in_thread(work: Callable[[], Result]) -> Result:
    """Runs `work` in a daemon thread, which keeps no process from ending. Returns or raises what `work` does."""
    worker = WorkerThread("once")
    try:
        return await worker.run(work)
    finally:
        worker.close()


def alive(seconds: float = STUCK_SECONDS) -> None:
    """Heartbeat of this thread's work: the next one is due within `seconds`. Does nothing outside a worker's thread."""
    job: WorkerJob | None = getattr(here, "job", None)
    if job is not None:
        job.due = time.monotonic() + seconds


class WorkerThread:
    """Runs jobs one after another. Its threads are daemons: a blocked one must not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: queue.SimpleQueue[WorkerJob | None] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.thread = self.new_thread()
        self.abandoned: list[BackgroundThread] = []
        self.current: WorkerJob | None = None
        self.is_closed = False

    def new_thread(self) -> BackgroundThread:
        return BackgroundThread(self.name, self.run_forever, may_end=True)

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Runs `work` in the thread. If the caller is cancelled, work that has begun goes on.

        Returns or raises what `work` does. Raises KeyStoreUnavailable if the work does not start, or gives no heartbeat, in time.
        """
        job = WorkerJob(asyncio.get_running_loop(), lambda: work(*args, **kwargs))
        if not self.is_closed:
            self.thread.start()  # also if it died
        self.waiting.put(job)
        while not job.future.done():
            remaining = job.due - time.monotonic()
            if remaining <= 0:
                self.give_up(job)
                break
            await _wait_for_done(job.future, min(remaining, LOOK_SECONDS))
        result: Result = await job.future
        return result

    def give_up(self, job: WorkerJob) -> None:
        what = "gave no answer in time" if job.has_begun else "is still busy with what was asked before"
        job.future.set_exception(KeyStoreUnavailable(f"the key store {what}", is_unsure=job.has_begun))
        with self.lock:
            self.abandoned = [thread for thread in self.abandoned if thread.is_running]
            if self.current is job and len(self.abandoned) < MAX_ABANDONED and not self.is_closed:
                self.abandoned.append(self.thread)
                self.thread = self.new_thread()
                self.thread.start()

    def run_forever(self) -> None:
        while (job := self.waiting.get()) is not None:
            with self.lock:
                self.current = job
            job.do()
            with self.lock:
                if not self.thread.is_current:  # abandoned meanwhile: another thread does the rest
                    return
                self.current = None

    def close(self) -> None:
        """Ends the thread after the jobs it already has. May be called twice, or before any job."""
        self.is_closed = True
        self.waiting.put(None)


async def _wait_for_done(future: "asyncio.Future[Any]", seconds: float) -> None:
    """Waits `seconds` at most. If the caller is cancelled, so is the future: a job that has not begun is then skipped."""
    try:
        await asyncio.wait([future], timeout=seconds)
    except asyncio.CancelledError:
        future.cancel()
        raise
