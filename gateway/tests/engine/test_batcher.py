"""Which jobs run next: bounds, closeness, fairness, and who is forgotten."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.engine.batcher import Batcher
from gateway.engine.budget import Budget
from gateway.engine.encoder import Window
from gateway.engine.fair_queue import MAX_REMEMBERED
from gateway.engine.scheduler import OLDEST_EVERY
from gateway.engine.work import Work
from gateway.errors import Overloaded
from gateway.metrics import Metrics


@pytest.fixture
async def loop():
    return asyncio.get_running_loop()


def batcher_of(*, max_batch_tokens=64, max_queue_tokens=10_000, num_devices=1):
    metrics = Metrics().of_model("m")
    budget = Budget(max_batch_tokens, metrics)
    return Batcher(budget=budget, max_queue_tokens=max_queue_tokens, metrics=metrics, num_devices=num_devices)


def work_of(lengths, *, caller="a", loop, **more):
    windows = [Window([7] * length) for length in lengths]
    return Work(caller, windows, np.empty((len(lengths), 2), np.float32), loop, loop.create_future(), **more)


def drained(batcher):
    """All the batches there are, in order."""
    batches = []
    while batcher.works:
        batches.append(batcher.next_batch())
    return batches


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=8), st.integers(1, 128))
@settings(max_examples=200, deadline=None)
def test_every_job_runs_once_in_a_batch_within_its_bounds(requests, max_batch_tokens):
    loop = asyncio.new_event_loop()
    try:
        batcher = batcher_of(max_batch_tokens=max_batch_tokens)
        works = [work_of(lengths, caller=str(number % 3), loop=loop) for number, lengths in enumerate(requests)]
        for work in works:
            batcher.submit(work)
        seen = Counter()
        for batch in drained(batcher):
            longest = max(job.num_tokens for job in batch)
            assert len(batch) == 1 or longest * len(batch) <= max_batch_tokens
            seen.update((id(job.work), job.position) for job in batch)
        assert seen == Counter((id(work), position) for work in works for position in range(len(work.windows)))
        assert batcher.num_tokens == batcher.num_inputs == 0
    finally:
        loop.close()


async def test_padding_stays_under_15_percent_in_a_mixture_of_lengths(loop):
    batcher = batcher_of(max_batch_tokens=2048, max_queue_tokens=10**9)
    lengths = random.Random(1).choices(range(4, 128), k=2000)
    batcher.submit(work_of(lengths, loop=loop))
    batches = drained(batcher)
    padded = sum(len(batch) * max(job.num_tokens for job in batch) for batch in batches)
    assert padded / sum(lengths) < 1.15


async def test_requests_share_a_batch(loop):
    batcher = batcher_of()
    for _ in range(4):
        batcher.submit(work_of([8], loop=loop))
    assert len({job.work for job in batcher.next_batch()}) == 4


async def test_a_short_query_passes_a_bulk(loop):
    batcher = batcher_of()
    batcher.submit(work_of([16] * 100, caller="bulk", loop=loop))
    batcher.next_batch()
    query = work_of([5], caller="query", loop=loop)
    batcher.submit(query)
    assert query in {job.work for job in batcher.next_batch()}


async def test_a_short_query_of_the_same_caller_passes_its_own_bulk(loop):
    batcher = batcher_of()
    batcher.submit(work_of([16] * 100, loop=loop))
    batcher.next_batch()
    query = work_of([5], loop=loop)
    batcher.submit(query)
    assert query in {job.work for job in batcher.next_batch()}


async def test_one_callers_flood_leaves_the_other_its_share(loop):
    batcher = batcher_of(max_queue_tokens=10**9)
    for _ in range(50):
        batcher.submit(work_of([8] * 40, caller="flood", loop=loop))
    batcher.submit(work_of([8] * 400, caller="other", loop=loop))
    served = Counter()
    for _ in range(60):
        served.update(job.work.caller for job in batcher.next_batch())
    assert served["other"] == pytest.approx(served["flood"], rel=0.1)


async def test_the_oldest_keeps_a_share_against_a_stream_of_new_requests(loop):
    batcher = batcher_of(max_queue_tokens=10**9)
    bulk = work_of([16] * 40, loop=loop)
    batcher.submit(bulk)
    turns = 0
    for _ in range(10 * OLDEST_EVERY):
        batcher.submit(work_of([5] * 12, loop=loop))  # fills a batch of its own each time
        turns += any(job.work is bulk for job in batcher.next_batch())
    assert turns >= 10


async def test_staying_away_saves_nothing_up(loop):
    batcher = batcher_of(max_queue_tokens=10**9)
    batcher.submit(work_of([8] * 400, caller="steady", loop=loop))
    for _ in range(20):
        batcher.next_batch()
    batcher.submit(work_of([8] * 400, caller="late", loop=loop))
    served = Counter()
    for _ in range(20):
        served.update(job.work.caller for job in batcher.next_batch())
    assert served["steady"] == pytest.approx(served["late"], rel=0.15)


async def test_a_full_queue_says_when_to_come_back(loop):
    batcher = batcher_of(max_queue_tokens=100)
    batcher.record_speed(50, 1.0)
    batcher.submit(work_of([90], loop=loop))
    with pytest.raises(Overloaded) as caught:
        batcher.submit(work_of([20], loop=loop))
    assert caught.value.headers()["Retry-After"] == "2"  # 90 tokens at 50 a second


async def test_background_work_takes_no_room_of_interactive_work(loop):
    batcher = batcher_of(max_queue_tokens=100)
    batcher.record_speed(50, 1.0)
    batcher.submit(work_of([90], loop=loop, service_class="background"))
    batcher.submit(work_of([90], loop=loop))
    with pytest.raises(Overloaded) as caught:
        batcher.submit(work_of([20], loop=loop))
    assert caught.value.headers()["Retry-After"] == "2"  # behind the interactive 90 tokens alone
    with pytest.raises(Overloaded):
        batcher.submit(work_of([20], loop=loop, service_class="background"))
    drained(batcher)
    assert batcher.num_tokens == batcher.num_background_tokens == 0


async def test_background_work_fills_a_fourth_of_an_interactive_batch_and_all_of_its_own(loop):
    batcher = batcher_of(max_batch_tokens=64)
    batcher.submit(work_of([8] * 30, loop=loop, caller="b", service_class="background"))
    alone = work_of([8], loop=loop)
    batcher.submit(alone)
    batches = drained(batcher)
    assert [len(batch) for batch in batches if any(job.work is alone for job in batch)] == [2]
    assert max(map(len, batches)) == 8
    assert sum(map(len, batches)) == 31
    for caller in "acd":
        batcher.submit(work_of([8] * 4, loop=loop, caller=caller))
    batcher.submit(work_of([8] * 4, loop=loop, caller="b", service_class="background"))
    assert len(batcher.next_batch()) == 8  # interactive work of others fills it whole


async def test_an_empty_queue_takes_what_is_larger_than_itself(loop):
    batcher = batcher_of(max_queue_tokens=100)
    batcher.submit(work_of([40] * 10, loop=loop))
    assert batcher.num_tokens == 400


async def test_a_client_who_left_is_not_computed_for(loop):
    batcher = batcher_of()
    gone, stays = work_of([8] * 100, loop=loop), work_of([8], loop=loop)
    batcher.submit(gone)
    batcher.submit(stays)
    batcher.forget(gone)
    assert [job.work for batch in drained(batcher) for job in batch] == [stays]
    assert batcher.num_tokens == 0


async def test_closing_wakes_everybody_who_waits(loop):
    batcher = batcher_of()
    work = work_of([8], loop=loop)
    batcher.submit(work)
    batcher.close(Overloaded("It is shutting down."))
    with pytest.raises(Overloaded):
        await asyncio.wait_for(work.done, 1)
    with pytest.raises(Overloaded):
        batcher.submit(work_of([8], loop=loop))
    assert batcher.next_batch() == []


async def test_remembered_callers_are_bounded(loop):
    batcher = batcher_of(max_queue_tokens=10**9)
    batcher.submit(work_of([64] * 10_000, caller="steady", loop=loop))
    for number in range(3000):
        batcher.submit(work_of([1] * 64, caller=str(number), loop=loop))
        batcher.next_batch()
    assert len(batcher.callers) < 3001 / 2
    assert len(batcher.scheduler.queues["interactive"].finishes) <= MAX_REMEMBERED


async def test_one_request_of_2048_inputs_and_64_clients_of_one_get_the_same_tokens(loop):
    """Both without pause, each of the many sending its next text as soon as its last one was embedded."""
    batcher = batcher_of(max_batch_tokens=512, max_queue_tokens=10**9)
    chosen, served = random.Random(1), Counter()
    batcher.submit(work_of([chosen.randrange(4, 120) for _ in range(2048)], caller="one", loop=loop))
    for _ in range(64):
        batcher.submit(work_of([chosen.randrange(4, 120)], caller="many", loop=loop))
    running = []
    while served.total() < 300_000:
        running.append(batcher.next_batch())
        for job in running.pop(0) if len(running) > 1 else ():  # two devices: one batch is under way while the next one is taken
            served[job.work.caller] += job.num_tokens
            if job.work.caller == "many":
                batcher.submit(work_of([chosen.randrange(4, 120)], caller="many", loop=loop))
            elif job.work not in batcher.works:
                batcher.submit(work_of([chosen.randrange(4, 120) for _ in range(2048)], caller="one", loop=loop))
    assert served["many"] == pytest.approx(served["one"], rel=0.1)


async def test_a_closed_queue_keeps_nothing_of_those_it_refuses(loop):
    batcher = batcher_of()
    batcher.close(Overloaded("closed"))
    for _ in range(10):
        with pytest.raises(Overloaded) as refused:
            batcher.submit(work_of([3], loop=loop))
        assert len(refused.traceback) == 2  # this test, and submit


async def resting(batcher, number):
    """Device threads that wait, each with the batch it will get."""
    batches = [asyncio.create_task(asyncio.to_thread(batcher.next_batch)) for _ in range(number)]
    async with asyncio.timeout(5):
        while batcher.num_resting < number:
            await asyncio.sleep(0.001)
    return batches


async def test_what_arrives_in_one_turn_of_the_loop_is_one_batch(loop):
    batcher = batcher_of()
    [batch] = await resting(batcher, 1)
    for _ in range(4):
        batcher.submit(work_of([8], loop=loop))
    assert len(await asyncio.wait_for(batch, 5)) == 4


async def test_a_device_that_leaves_work_behind_wakes_the_next(loop):
    batcher = batcher_of(max_batch_tokens=16)
    batches = await resting(batcher, 3)
    batcher.submit(work_of([8] * 6, loop=loop))
    assert [len(batch) for batch in await asyncio.wait_for(asyncio.gather(*batches), 5)] == [2, 2, 2]
    assert batcher.num_resting == 0


async def test_a_device_is_woken_for_every_request_that_comes_while_another_works(loop):
    batcher = batcher_of(max_batch_tokens=16)
    waiting = set(await resting(batcher, 2))
    while waiting:
        batcher.submit(work_of([8], loop=loop))
        async with asyncio.timeout(5):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [len(batch.result()) for batch in done] == [1]


async def test_work_that_was_taken_back_wakes_nobody_for_nothing(loop):
    batcher = batcher_of()
    [batch] = await resting(batcher, 1)
    gone = work_of([8], loop=loop)
    batcher.submit(gone)
    batcher.forget(gone)
    await asyncio.sleep(0)
    assert batcher.num_resting == 1
    stays = work_of([8], loop=loop)
    batcher.submit(stays)
    assert [job.work for job in await asyncio.wait_for(batch, 5)] == [stays]


class Interrupted(list):
    """Positions in whose `len` another device's thread gets its turn."""

    def __init__(self, positions, take_turn):
        super().__init__(positions)
        self.take_turn = take_turn

    def __len__(self):
        self.take_turn()
        return super().__len__()


async def test_devices_that_deliver_to_one_request_at_once_complete_it(loop):
    work, others = work_of([3] * 6, loop=loop), [2, 3, 4, 5]

    def deliver_other():
        if others:
            work.deliver([others.pop()], np.ones((1, 2), np.float32))

    work.deliver(Interrupted([0, 1], deliver_other), np.ones((2, 2), np.float32))
    while others:
        deliver_other()
    assert work.remaining == 0


LONG, SHORT = 129, 128  # tokens: long is more than two batches of 64


def lengths_of(future):
    return [job.num_tokens for job in future.result(timeout=10)]


async def test_one_device_of_two_is_left_to_short_windows(loop):
    batcher = batcher_of(num_devices=2)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        batcher.submit(work_of([LONG, LONG, SHORT], loop=loop))
        assert lengths_of(one.submit(batcher.next_batch)) == [LONG]
        assert lengths_of(other.submit(batcher.next_batch)) == [SHORT]
        resting = other.submit(batcher.next_batch)  # the second long one is not for it
        query = work_of([5], caller="b", loop=loop)
        batcher.submit(query)
        batcher.wake()
        assert lengths_of(resting) == [5]
        assert lengths_of(one.submit(batcher.next_batch)) == [LONG]
        batcher.close(Overloaded(retry_after_seconds=1))


async def test_long_windows_are_all_taken_by_turns(loop):
    """Whichever device is free takes the next, though the other one rests, and none is forgotten."""
    batcher = batcher_of(num_devices=2)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        batcher.submit(work_of([LONG] * 3, loop=loop))
        assert lengths_of(one.submit(batcher.next_batch)) == [LONG]
        resting = other.submit(batcher.next_batch)
        assert lengths_of(one.submit(batcher.next_batch)) == [LONG]
        one.submit(batcher.end_batch).result()  # as of a device thread that died
        batcher.wake()
        assert lengths_of(resting) == [LONG]
        assert not batcher.works
        batcher.close(Overloaded(retry_after_seconds=1))


async def test_a_single_device_takes_long_windows_too(loop):
    batcher = batcher_of()
    batcher.submit(work_of([LONG, 5], loop=loop))
    assert sorted(job.num_tokens for batch in drained(batcher) for job in batch) == [5, LONG]


async def test_a_caller_passed_over_for_its_long_windows_leads_as_soon_as_it_may(loop):
    batcher = batcher_of(num_devices=2)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        batcher.submit(work_of([LONG, LONG], caller="long", loop=loop))
        assert lengths_of(one.submit(batcher.next_batch)) == [LONG]
        batcher.submit(work_of([60] * 20, caller="bulk", loop=loop))
        for _ in range(12):
            assert lengths_of(other.submit(batcher.next_batch)) == [60]
        assert lengths_of(one.submit(batcher.next_batch)) == [LONG]
        batcher.close(Overloaded(retry_after_seconds=1))
