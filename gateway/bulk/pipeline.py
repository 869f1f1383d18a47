"""A pipeline of three stages: read rows ahead, embed shards, write results behind. Results are written in the input's order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from threading import Event
from typing import Any, ParamSpec, TypeVar

from gateway.background import launch
from gateway.bulk.journal import Checkpoint, Journal
from gateway.bulk.outcome import ShardResult
from gateway.bulk.shard import Shard, shards
from gateway.bulk.source import RowSource
from gateway.bulk.worker import BulkWorker
from gateway.embedding.embedder import WorkT
from gateway.errors import OperatorError

AHEAD = 1  # shards that are prepared while those in flight are embedded

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")
Work = TypeVar("Work")
Done = TypeVar("Done")


async def run_all(
    coming: AsyncIterator[Work],
    work: Callable[[Work], Coroutine[Any, Any, Done]],
    write: Callable[[Done], Awaitable[None]],
    *,
    in_flight: int,
) -> None:
    """Works on all pieces of `coming`, and writes the results in their order. At most `in_flight` + 2 pieces are in memory.

    If it is cancelled, or something raises, what was not written is given up.
    """
    waiting: deque[asyncio.Task[Done]] = deque()
    try:
        async for piece in coming:
            waiting.append(launch(work(piece), name="shard"))
            if len(waiting) >= in_flight + AHEAD:
                await write(await waiting.popleft())
        while waiting:
            await write(await waiting.popleft())
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def embed_all(
    source: RowSource, worker: BulkWorker[WorkT], journal: Journal, *, in_flight: int, show: Callable[[Checkpoint], None]
) -> None:
    """Embeds from the end of the journal to the end of the source. If it is cancelled, the journal has whole shards only.

    At most `in_flight` + 2 shards are in memory, however large the source is. Raises OperatorError.
    """

    async def write_shard(result: ShardResult) -> None:
        await in_thread(write, journal, result)
        show(journal.done)

    await run_all(_read_ahead(shards(source.rows(journal.done.next))), worker.run, write_shard, in_flight=in_flight)


async def _read_ahead(coming: Iterator[Shard]) -> AsyncIterator[Shard]:
    while (shard := await in_thread(following, coming)) is not None:
        yield shard


async def in_thread(work: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
    """Runs `work` in a thread. If it is cancelled, it waits for the thread to end first, because the thread uses the files."""
    task = launch(asyncio.to_thread(work, *args, **kwargs), name="files")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def in_stoppable_thread(work: Callable[[Event], Value]) -> Value:
    """As `in_thread`, for long work and work that waits for input. If it is cancelled, it sets the event first."""
    stop = Event()
    task = launch(asyncio.to_thread(work, stop), name="files")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([task])
        raise


def following(coming: Iterator[Shard]) -> Shard | None:
    """Returns the next shard, or None after the last."""
    try:
        return next(coming, None)
    except OSError as error:
        raise OperatorError(f"the input cannot be read: {error.strerror or error}") from None


def write(journal: Journal, result: ShardResult) -> None:
    try:
        journal.append(result)
    except OSError as error:
        raise OperatorError(f"{journal.folder} cannot be written: {error.strerror or error}; what was done is kept") from None
