"""A thread for what may block."""

import asyncio
import threading

import pytest

from gateway.access.worker import WorkerThread
from gateway.errors import KeyStoreUnavailable


@pytest.fixture
def worker():
    worker = WorkerThread("test")
    yield worker
    worker.close()


async def test_it_gives_back_what_the_work_returns_and_raises_what_it_raises(worker):
    assert await worker.run(int, "7", base=8) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        await worker.run(int, "x")
    assert await worker.run(threading.current_thread) is worker.thread.thread


async def test_one_thing_is_done_after_another(worker):
    done = []
    await asyncio.gather(*(worker.run(done.append, number) for number in range(20)))
    assert done == list(range(20))


async def test_who_is_cancelled_no_longer_waits_and_the_next_is_served(worker):
    gate = threading.Event()
    stuck = asyncio.create_task(worker.run(gate.wait))
    skipped = asyncio.create_task(worker.run(pytest.fail, "nobody waits for this"))
    await asyncio.sleep(0)
    for task in (stuck, skipped):
        task.cancel()
    await asyncio.gather(stuck, skipped, return_exceptions=True)
    assert stuck.cancelled()
    gate.set()
    assert await worker.run(int) == 0


async def test_what_was_given_before_the_end_is_done_and_the_thread_ends(worker):
    last = asyncio.create_task(worker.run(int))
    await asyncio.sleep(0)
    worker.close()
    assert await last == 0
    worker.thread.close(10)
    assert not worker.thread.is_running


def test_a_loop_that_has_ended_is_not_told(worker):
    gate, is_done = threading.Event(), threading.Event()

    def work() -> None:
        gate.wait()
        is_done.set()

    async def leave() -> None:
        task = asyncio.create_task(worker.run(work))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    gate.set()
    worker.close()
    worker.thread.close(10)
    assert not worker.thread.is_running


async def test_a_thread_that_died_is_replaced_by_the_next_work(worker, monkeypatch):
    def dying(_):
        raise MemoryError

    first = await worker.run(threading.current_thread)
    with monkeypatch.context() as patched:
        patched.setattr("gateway.access.worker.WorkerJob.do", dying)
        patched.setattr("gateway.access.worker.WAIT_SECONDS", 0.01)
        with pytest.raises(KeyStoreUnavailable):
            await worker.run(print)
        first.join(10)
        assert worker.thread.death in {"MemoryError", None}  # None where another has taken its place already
    assert await worker.run(threading.current_thread) is not first
