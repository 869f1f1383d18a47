"""Background work has one form: its owner starts it, asks whether it runs, and closes it. A death is logged once, with its reason.

A death is an end that nobody asked for: an exception, a return, a cancellation by somebody else. Nothing is restarted here. The
owner decides: work that it does not begin anew fails `/livez` from then on, so that a supervisor restarts the process; work that it
begins anew is counted (`gateway_background_restarts_total`).
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.errors import OperatorError
from gateway.log import get_logger

# asyncio.wait_for of Python 3.11 loses a cancellation that comes together with what it waits for, so another one follows. Not
# before any work here has had the time to clean up (3 s, for a process to end), which it would cut short.
CANCEL_AGAIN_SECONDS = 10.0

Result = TypeVar("Result")

log = get_logger()


class BackgroundTask:
    """A task that runs until it is closed. Used on one event loop.

    `work` makes the coroutine, anew at each start. Where it `may_end`, a return is no death. `on_death` is called after a death was
    logged. `death` is its reason, in a word that may be logged, until the work is started again; None while there was none.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Coroutine[Any, Any, object]],
        *,
        may_end: bool = False,
        on_death: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self.work = work
        self.may_end = may_end
        self.on_death = on_death
        self.task: asyncio.Task[object] | None = None
        self.death: str | None = None
        self.is_closing = False

    def start(self) -> None:
        """Begins, unless it runs. What died, ended or was closed begins anew."""
        if self.is_running:
            return
        self.death, self.is_closing = None, False
        self.task = asyncio.create_task(self.work(), name=self.name)
        self.task.add_done_callback(self.on_end)

    @property
    def is_running(self) -> bool:
        return self.task is not None and not self.task.done()

    def on_end(self, task: asyncio.Task[object]) -> None:
        error = retrieve(task)
        if error is None and (self.is_closing or (self.may_end and not task.cancelled())):
            return
        self.death = "it was cancelled" if task.cancelled() else reason_of(error)
        log.error("task_died", task=self.name, reason=self.death, **({"exc_info": error} if error else {}))
        self.on_death()

    async def wait_ended(self) -> None:
        """Returns once it does not run, and raises nothing of it."""
        if self.task is not None and not self.task.done():
            await asyncio.wait([self.task])

    async def close(self, *, grace_seconds: float = 0.0) -> None:
        """Cancels it, unless it ends within the grace, and waits for its end. May be called twice, or before a start."""
        self.is_closing = True
        if self.task is not None and grace_seconds:
            await asyncio.wait([self.task], timeout=grace_seconds)
        while self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task], timeout=CANCEL_AGAIN_SECONDS)


class BackgroundThread:
    """A thread in the same form. Nobody can cancel a thread, so its owner first tells the work to end, by means of its own.

    `on_death` is called on the dying thread. Only one that is no daemon keeps the process from ending.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        *,
        may_end: bool = False,
        is_daemon: bool = True,
        on_death: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self.work = work
        self.may_end = may_end
        self.is_daemon = is_daemon
        self.on_death = on_death
        self.thread: threading.Thread | None = None
        self.death: str | None = None
        self.is_closing = False

    def start(self) -> None:
        """Begins, unless it runs. Raises RuntimeError where the system gives no more threads."""
        if self.is_running:
            return
        self.death, self.is_closing = None, False
        self.thread = threading.Thread(target=self.run, name=self.name, daemon=self.is_daemon)
        try:
            self.thread.start()
        except RuntimeError:
            self.thread = None
            raise

    @property
    def is_running(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on it."""
        return self.thread is threading.current_thread()

    def run(self) -> None:
        error: BaseException | None = None
        try:
            self.work()
        except BaseException as raised:  # noqa: BLE001 - whatever ends it is what is told
            error = raised
        if error is None and (self.may_end or self.is_closing):
            return
        self.death = reason_of(error)
        log.error("thread_died", thread=self.name, reason=self.death, **({"exc_info": error} if error else {}))
        self.on_death()

    def close(self, timeout_seconds: float) -> None:
        """From now on an end is no death. Waits for it so long at most, and not at all on the thread itself."""
        self.is_closing = True
        if self.thread is not None and not self.is_current:
            self.thread.join(timeout_seconds)


def launch(work: Coroutine[Any, Any, Result], *, name: str, is_awaited: bool = True) -> asyncio.Task[Result]:
    """Begins one piece of work that ends by itself. Whoever waits for it raises what it raises, and may leave before.

    What nobody will wait for is told to be not `is_awaited`: its failure is then logged as a death.
    """
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(retrieve if is_awaited else log_failure)
    return task


def retrieve(task: "asyncio.Task[Any]") -> BaseException | None:
    """Its exception. One that was never retrieved asyncio would log, with whatever its words quote."""
    return None if task.cancelled() else task.exception()


def log_failure(task: "asyncio.Task[Any]") -> None:
    if error := retrieve(task):
        log.error("task_died", task=task.get_name(), reason=reason_of(error), exc_info=error)


def reason_of(error: BaseException | None) -> str:
    """An error of ours is written for operators; of any other only the type is told, as its words may quote what a client sent."""
    if error is None:
        return "it returned"
    return str(error) if isinstance(error, OperatorError) else type(error).__qualname__
