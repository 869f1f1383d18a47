"""The gateway's end of the line, with a child process at the other end that needs no cluster."""

import asyncio
import sys
from contextlib import asynccontextmanager

import numpy as np
import pytest

from gateway.calls.message import EmbedCall, EmbedRefusal, EmbedResult
from gateway.cluster.client_process import MAX_OUTSTANDING, RayClientProcess
from gateway.cluster.ray_client import ClientConfig, RayClient
from gateway.errors import Overloaded
from gateway.testing.ray_cluster import until

COMMAND = (sys.executable, "-m", "gateway.tests.cluster.scripted_ray_client")


@asynccontextmanager
async def opened(**more):
    news = []
    line = RayClientProcess(
        "m",
        ClientConfig(0, "", "", 1),
        on_status_change=news.append,
        on_replica=news.append,
        on_death=print,
        command=COMMAND,
        **more,
    )
    line.open()
    await until(lambda: news and news[-1].is_up)
    try:
        yield line, news
    finally:
        await line.close()


async def asked(line, caller, *numbers):
    packed = np.array(numbers, dtype=np.int32)
    call = EmbedCall(number=0, seconds=60, caller=caller, normalize=True, fingerprint="f")
    answer, payload = await line.call(call, memoryview(packed).cast("B"))
    return (answer, np.frombuffer(payload, dtype=np.float32).tolist()) if isinstance(answer, EmbedResult) else (answer, None)


async def test_answers_find_their_calls_in_any_order():
    async with opened() as (line, _):
        calls = [asyncio.create_task(asked(line, "is held", number)) for number in range(5)]
        await asyncio.sleep(0)
        last = await asked(line, "a", 5, 6)
        rows = [row for _, row in await asyncio.gather(*calls)]
        assert rows == [[float(number)] for number in range(5)]
        assert last[1] == [5.0, 6.0]


@pytest.mark.parametrize("caller", ["dies", "says goodbye", "talks nonsense"])
async def test_a_ray_client_that_ends_answers_for_what_it_held_and_another_one_comes(caller):
    async with opened() as (line, news):
        first = news[-1].detail
        silent = asyncio.create_task(asked(line, "is silent", 1))
        await asyncio.sleep(0)
        for answer, _ in (await asked(line, caller, 1), await silent):
            assert isinstance(answer, EmbedRefusal)
            assert answer.code == "lost"
        await until(lambda: news[-1].is_up and news[-1].detail != first)
        assert (await asked(line, "a", 2))[1] == [2.0]
        assert any(not each.is_up and each.detail for each in news)


async def test_a_ray_client_that_says_nothing_any_more_is_replaced():
    async with opened(silent_seconds=0.5) as (line, news):
        first = news[-1].detail
        answer, _ = await asked(line, "is silent", 1)
        assert answer.code == "lost"
        await until(lambda: news[-1].is_up and news[-1].detail != first)
        assert any("said nothing for 0.5 seconds" in each.detail for each in news)


async def test_a_call_nobody_waits_for_is_cancelled_at_the_other_end():
    async with opened() as (line, news):
        task = asyncio.create_task(asked(line, "is silent", 1))
        await until(lambda: line.waiting)
        [number] = line.waiting
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not line.waiting
        await until(lambda: news[-1].detail == f"cancelled {number}")


async def test_calls_are_bounded():
    async with opened() as (line, _):
        held = [asyncio.create_task(asked(line, "is silent", 1)) for _ in range(MAX_OUTSTANDING)]
        await until(lambda: len(line.waiting) == MAX_OUTSTANDING)
        with pytest.raises(Overloaded):
            await asked(line, "a", 1)
        await line.close()
        assert {answer.code for answer, _ in await asyncio.gather(*held)} == {"lost"}


async def test_a_call_before_any_client_is_lost_at_once():
    line = RayClientProcess(
        "m", ClientConfig(0, "", "", 1), on_status_change=print, on_replica=print, on_death=print, command=COMMAND
    )
    answer, _ = await asked(line, "a", 1)
    assert answer.code == "lost"
    await line.close()


async def test_a_ray_client_whose_watch_dies_says_so_at_its_end():
    """In the child process, which has no log: the gateway logs what it is told."""

    async def dying():
        raise ValueError("words that may quote anything")

    client = object.__new__(RayClient)
    client.watch, client.listen = dying, asyncio.Event().wait
    assert await asyncio.wait_for(client.run(), 10) == "its watch died: ValueError"
