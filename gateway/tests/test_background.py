"""The one form of background work: what is a death, what is none, and what is told of it."""

import asyncio
import gc
import io
import json
import sys
import threading
from contextlib import suppress

import pytest

from gateway import log
from gateway.background import BackgroundTask, BackgroundThread, launch
from gateway.errors import OperatorError

SECRET = "sk-a-key-and-a-text"


async def forever():
    await asyncio.Event().wait()


async def ending():
    """Work that returns."""


async def failing():
    raise ValueError(SECRET)


async def failing_for_operators():
    raise OperatorError("its file is gone")


@pytest.fixture
def logged(monkeypatch):
    """The lines of the log so far, as an operator has them."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(level="info", line_format="json")
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("work", "reason"), [(failing, "ValueError"), (failing_for_operators, "its file is gone"), (ending, "it returned")]
)
async def test_a_death_is_told_once_with_its_reason(work, reason, logged):
    deaths = []
    task = BackgroundTask("a-part", work, on_death=lambda: deaths.append(task.death))
    task.start()
    assert task.is_running
    await task.wait_ended()
    await asyncio.sleep(0)
    assert not task.is_running
    assert deaths == [reason]
    [line] = logged()
    assert (line["event"], line["task"], line["reason"]) == ("task_died", "a-part", reason)
    assert SECRET not in str(line)
    await task.close()
    assert logged() == [line]


async def test_a_cancellation_by_anybody_else_is_a_death(logged):
    task = BackgroundTask("a-part", forever)
    task.start()
    await asyncio.sleep(0)
    task.task.cancel()
    await task.wait_ended()
    await asyncio.sleep(0)
    assert task.death == "it was cancelled"
    assert [line["reason"] for line in logged()] == ["it was cancelled"]


async def test_being_closed_is_none_nor_is_an_end_that_is_allowed(logged):
    closed, ended = BackgroundTask("closed", forever), BackgroundTask("ended", ending, may_end=True)
    for task in (closed, ended):
        await task.close()  # before a start too
        task.start()
    await ended.wait_ended()
    await closed.close()
    await closed.close()
    assert (closed.death, ended.death) == (None, None)
    assert not closed.is_running
    assert logged() == []


async def test_what_may_end_dies_by_exceptions_and_cancellations_all_the_same(logged):
    tasks = [BackgroundTask("fails", failing, may_end=True), BackgroundTask("cancelled", forever, may_end=True)]
    for task in tasks:
        task.start()
    await asyncio.sleep(0)
    tasks[1].task.cancel()
    for task in tasks:
        await task.wait_ended()
    await asyncio.sleep(0)
    assert [task.death for task in tasks] == ["ValueError", "it was cancelled"]
    assert len(logged()) == 2


async def test_a_second_start_changes_nothing_and_one_after_a_death_begins_anew(logged):
    works = [failing, forever]

    async def again():
        await works.pop(0)()

    task = BackgroundTask("a-part", again)
    task.start()
    first = task.task
    task.start()
    assert task.task is first
    await task.wait_ended()
    await asyncio.sleep(0)
    assert task.death == "ValueError"
    task.start()
    assert (task.is_running, task.death) == (True, None)
    await task.close()
    assert len(logged()) == 1


async def test_a_cancellation_that_was_lost_is_made_again(monkeypatch):
    monkeypatch.setattr("gateway.background.CANCEL_AGAIN_SECONDS", 0.01)

    async def losing():
        with suppress(asyncio.CancelledError):
            await forever()
        await forever()

    task = BackgroundTask("a-part", losing)
    task.start()
    await asyncio.sleep(0)
    await asyncio.wait_for(task.close(), 10)
    assert not task.is_running


async def test_within_its_grace_it_ends_by_itself():
    stop, ended = asyncio.Event(), []

    async def work():
        await stop.wait()
        await asyncio.sleep(0)
        ended.append(True)

    task = BackgroundTask("a-part", work)
    task.start()
    stop.set()
    await task.close(grace_seconds=10)
    assert ended
    assert task.death is None


def test_a_thread_has_the_same_form(logged):
    may_end, deaths = threading.Event(), []

    def failing():
        raise ValueError(SECRET)

    dead = BackgroundThread("dead", failing, on_death=lambda: deaths.append(dead.death))
    over = BackgroundThread("over", deaths.copy)
    fine = BackgroundThread("fine", deaths.copy, may_end=True)
    closed = BackgroundThread("closed", may_end.wait)
    for thread in (dead, over, fine, closed):
        thread.start()
    assert closed.is_running
    closed.close(0)
    may_end.set()
    for thread in (dead, over, fine, closed):
        thread.close(10)
        assert not thread.is_running
    assert deaths == ["ValueError"]
    assert (over.death, fine.death, closed.death) == ("it returned", None, None)
    told = logged()
    assert {(line["event"], line["thread"], line["reason"]) for line in told} == {
        ("thread_died", "dead", "ValueError"),
        ("thread_died", "over", "it returned"),
    }
    assert SECRET not in str(told)


def test_a_thread_that_cannot_be_had_leaves_nothing_behind(monkeypatch):
    def refusing(_):
        raise RuntimeError("can't start new thread")

    thread = BackgroundThread("a-part", print)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refusing)
        with pytest.raises(RuntimeError, match="new thread"):
            thread.start()
    assert not thread.is_running
    thread.close(1)


async def test_a_piece_of_work_that_nobody_waits_for_dies_in_the_log(logged):
    await asyncio.wait([launch(failing(), name="piece", is_awaited=False), launch(ending(), name="other", is_awaited=False)])
    await asyncio.sleep(0)
    assert [(line["event"], line["task"], line["reason"]) for line in logged()] == [("task_died", "piece", "ValueError")]


async def test_one_piece_of_work_is_for_whoever_waits_and_nobody_has_to(caplog):
    with pytest.raises(ValueError, match=SECRET):
        await launch(failing(), name="piece")
    left = launch(failing(), name="piece")
    await asyncio.wait([left])
    del left
    gc.collect()
    assert caplog.records == []  # asyncio would log the exception of a task that nobody asked, with all it quotes
