"""A thread for what may block: the database's answers."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Worker:
    """Does one thing after another. Its thread is a daemon: a database that never answers must not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self.waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.live, name=name, daemon=True)
        self.is_closed = False

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """What `work` returns or raises. Who is cancelled no longer waits; what was begun goes on."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def do() -> None:
            if future.cancelled():
                return
            try:
                result = work(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                tell(loop, future, future.set_exception, error)
            else:
                tell(loop, future, future.set_result, result)

        if not self.thread.is_alive() and not self.is_closed:
            self.thread.start()
        self.waiting.put(do)
        return await future

    def live(self) -> None:
        while (do := self.waiting.get()) is not None:
            do()

    def close(self) -> None:
        """Ends the thread once it has done what it was given before. May be called twice, or before anything was run."""
        self.is_closed = True
        self.waiting.put(None)


def tell(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Result]", way: Callable[..., None], what: object) -> None:
    with suppress(RuntimeError):  # the loop has ended: nobody waits any more
        loop.call_soon_threadsafe(lambda: None if future.done() else way(what))
