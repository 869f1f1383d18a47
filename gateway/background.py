"""Supervised background work: its owner starts it, asks whether it runs, and closes it. A death is logged once, with its reason.

A death is an end that the owner did not request: an exception, a return, or a cancellation from elsewhere. Nothing is restarted
here: the owner decides. If it restarts the work, that is counted (`gateway_background_restarts_total`). If it does not, `/livez`
fails from then on, so that a supervisor restarts the process.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.errors import OperatorError
from gateway.log import get_logger

# asyncio.wait_for of Python 3.11 loses a cancellation that arrives together with its result, so a second one follows. It must not
# cut short the clean-up after the first one, which takes 3 s at most here (for a process to end).
CANCEL_AGAIN_SECONDS = 10.0

Result = TypeVar("Result")

log = get_logger()


class BackgroundTask:
    """An asyncio task that runs until it is closed. Used on one event loop.

    `work` makes a new coroutine at each start. If it `may_end`, a return is not a death. `on_death` is called after a death was
    logged. `death` is the reason, safe to log; None if the work has not died since it was last started.
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
        """Starts the task unless it runs. A task that died, ended or was closed can be started again."""
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
        """Waits until the task does not run. Its exception is not raised here."""
        if self.task is not None and not self.task.done():
            await asyncio.wait([self.task])

    async def close(self, *, grace_seconds: float = 0.0) -> None:
        """Lets the task end by itself within the grace, then cancels it and waits. May be called twice, or before a start."""
        self.is_closing = True
        if self.task is not None and grace_seconds:
            await asyncio.wait([self.task], timeout=grace_seconds)
        while self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task], timeout=CANCEL_AGAIN_SECONDS)


class BackgroundThread:
    """A thread with the interface of BackgroundTask. A thread cannot be cancelled: its owner must make the work end before `close`.

    `on_death` is called on the dying thread. Only a thread that is not a daemon keeps the process from ending.
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
        """Starts the thread unless it runs. Raises RuntimeError if the system gives no more threads."""
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
        """Whether the caller runs on this thread."""
        return self.thread is threading.current_thread()

    def run(self) -> None:
        error: BaseException | None = None
        try:
            self.work()
        except BaseException as raised:  # noqa: BLE001 - any exception is a death, and is logged
            error = raised
        if error is None and (self.may_end or self.is_closing):
            return
        self.death = reason_of(error)
        log.error("thread_died", thread=self.name, reason=self.death, **({"exc_info": error} if error else {}))
        self.on_death()

    def close(self, timeout_seconds: float) -> None:
        """From now on a return is not a death. Waits `timeout_seconds` at most for the end, and not at all on the thread itself."""
        self.is_closing = True
        if self.thread is not None and not self.is_current:
            self.thread.join(timeout_seconds)


def launch(
    work: Coroutine[Any, Any, Result],
    *,
    name: str,
    is_awaited: bool = True,
    on_end: "Callable[[asyncio.Task[Result]], object] | None" = None,
) -> asyncio.Task[Result]:
    """Starts a task that ends by itself. Awaiting it raises its exception; a caller may stop waiting before its end.

    Pass `is_awaited=False` if nothing will await the task: its failure is then logged as a death. `on_end` is called at its end,
    instead of that, and must `retrieve` the exception: each callback costs the event loop a turn.
    """
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(on_end or (retrieve if is_awaited else _log_failure))
    return task


def await_from_thread(work: Coroutine[Any, Any, Result], loop: asyncio.AbstractEventLoop, *, timeout_seconds: float) -> Result:
    """Runs `work` on the event loop and blocks this thread, which is not the loop's own, until its end.

    Raises what it raises, and TimeoutError after `timeout_seconds`.
    """
    running = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return running.result(timeout_seconds)
    except TimeoutError:
        running.cancel()
        raise


def retrieve(task: "asyncio.Task[Any]") -> BaseException | None:
    """Returns the task's exception. One never retrieved would be logged by asyncio, with a text that may quote a client."""
    return None if task.cancelled() else task.exception()


def _log_failure(task: "asyncio.Task[Any]") -> None:
    if error := retrieve(task):
        log.error("task_died", task=task.get_name(), reason=reason_of(error), exc_info=error)


def reason_of(error: BaseException | None) -> str:
    """The text of an OperatorError. Of any other error only the type: its message may quote what a client sent."""
    if error is None:
        return "it returned"
    return str(error) if isinstance(error, OperatorError) else type(error).__qualname__
