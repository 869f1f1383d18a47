"""A thread for what may block: the database's answers.

A thread that blocks cannot be ended. One whose work gives no sign of life within its time is abandoned: whoever waits is told, and
another thread takes its place. At most MAX_ABANDONED are left behind at once; beyond that nothing more is begun until one returns.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from gateway.background import BackgroundThread
from gateway.errors import StoreAway

STUCK_SECONDS = 8.0  # for work that says nothing of itself
WAIT_SECONDS = 30.0  # for the turn of what waits behind other work
LOOK_SECONDS = 0.5  # between looks whether a sign of life is overdue
MAX_ABANDONED = 4

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

here = threading.local()


class WorkerJob:
    """One piece of work. `due` is when its next sign of life is; beyond it whoever waits for it is told that there is none."""

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
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            self.deliver(self.future.set_exception, error)
        else:
            self.deliver(self.future.set_result, result)
        finally:
            here.job = None

    def deliver(self, way: Callable[..., None], what: object) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self.loop.call_soon_threadsafe(lambda: None if self.future.done() else way(what))


async def in_thread(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, in a daemon of its own: what never answers keeps no process from ending."""
    worker = WorkerThread("once")
    try:
        return await worker.run(work)
    finally:
        worker.close()


def alive(seconds: float = STUCK_SECONDS) -> None:
    """The work of this thread goes on; its next sign of life comes within so long. Nothing outside a worker's thread."""
    job: WorkerJob | None = getattr(here, "job", None)
    if job is not None:
        job.due = time.monotonic() + seconds


class WorkerThread:
    """Does one thing after another. Its threads are daemons: what never answers must not keep the process from ending."""

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
        """What `work` returns or raises. Who is cancelled no longer waits; what was begun goes on.

        Raises StoreAway where the work gives no sign of life in time, or its turn does not come.
        """
        job = WorkerJob(asyncio.get_running_loop(), lambda: work(*args, **kwargs))
        if not self.is_closed:
            self.thread.start()  # also one that died
        self.waiting.put(job)
        while not job.future.done():
            remaining = job.due - time.monotonic()
            if remaining <= 0:
                self.give_up(job)
                break
            await wait_for_done(job.future, min(remaining, LOOK_SECONDS))
        result: Result = await job.future
        return result

    def give_up(self, job: WorkerJob) -> None:
        what = "gave no answer in time" if job.has_begun else "is still busy with what was asked before"
        job.future.set_exception(StoreAway(f"the key store {what}", is_unsure=job.has_begun))
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
                if not self.thread.is_current:  # abandoned meanwhile: another does the rest
                    return
                self.current = None

    def close(self) -> None:
        """Ends the thread once it has done what it was given before. May be called twice, or before anything was run."""
        self.is_closed = True
        self.waiting.put(None)


async def wait_for_done(future: "asyncio.Future[Any]", seconds: float) -> None:
    """Returns after so long at the latest. Who is cancelled leaves the future cancelled: what was not begun is skipped."""
    try:
        await asyncio.wait([future], timeout=seconds)
    except asyncio.CancelledError:
        future.cancel()
        raise
