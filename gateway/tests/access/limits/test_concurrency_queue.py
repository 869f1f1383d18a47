"""Requests beyond a key's limit of concurrent ones: they wait in order, within bounds, and leave with their client."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.limits.concurrency_queue import ConcurrencyQueue
from gateway.config import LimitSettings
from gateway.errors import ClientGone, Overloaded, RateLimited
from gateway.testing.fakes import FakeClock

PATIENT = LimitSettings(max_wait_seconds=60)
HASTY = LimitSettings(max_wait_seconds=0.001)


@pytest.fixture
def queue():
    return ConcurrencyQueue(clock=FakeClock(), draw=lambda: 0.5)


def ask(queue, caller="a", most=1, settings=PATIENT, on_disconnect=None):
    return asyncio.create_task(queue.enter(caller, most, settings, on_disconnect))


async def turns(*tasks):
    """Which of them have their turn, once the loop has nothing else to do."""
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() and task.exception() is None for task in tasks]


async def test_a_callers_requests_run_in_the_order_in_which_they_came(queue):
    tasks = [ask(queue, most=2) for _ in range(5)]
    assert await turns(*tasks) == [True, True, False, False, False]
    queue.leave("a")
    assert await turns(*tasks) == [True, True, True, False, False]
    queue.leave("a")
    queue.leave("a")
    assert await turns(*tasks) == [True] * 5
    assert await turns(ask(queue, "b")) == [True]  # another caller waits for nobody
    for _ in range(2):
        queue.leave("a")
    queue.leave("b")
    assert (queue.lines, queue.num_waiting) == ({}, 0)


async def test_who_comes_later_overtakes_nobody(queue):
    first, second = ask(queue), ask(queue)
    await turns(first, second)
    queue.leave("a")
    assert await turns(second, ask(queue)) == [True, False]


async def test_nobody_waits_longer_than_the_settings_say(queue):
    await queue.enter("a", 1, HASTY)
    with pytest.raises(RateLimited, match=r"^Rate limit reached on concurrent requests: limit 1\. "):
        await queue.enter("a", 1, HASTY)
    assert queue.num_waiting == 0
    queue.leave("a")
    assert queue.lines == {}


@pytest.mark.parametrize("settings", [{"max_waiting_per_key": 2}, {"max_waiting": 2}])
async def test_waiters_are_bounded_by_key_and_in_all(queue, settings):
    bounded = LimitSettings(max_wait_seconds=60, **settings)
    await queue.enter("a", 1, bounded)
    waiters = [ask(queue, settings=bounded) for _ in range(2)]
    await turns(*waiters)
    with pytest.raises(RateLimited):
        await queue.enter("a", 1, bounded)
    await queue.enter("b", 1, bounded)
    other = ask(queue, "b", settings=bounded)
    assert await turns(other) == [False]
    assert isinstance(other.done() and other.exception(), RateLimited) == ("max_waiting" in settings)
    for task in (*waiters, other):
        task.cancel()
    await asyncio.gather(*waiters, other, return_exceptions=True)
    assert queue.num_waiting == 0


async def test_a_raised_limit_wakes_waiters_and_a_lowered_one_holds_them(queue):
    first, second, third = ask(queue), ask(queue), ask(queue)
    assert await turns(first, second, third) == [True, False, False]
    fourth = ask(queue, most=3)
    assert await turns(second, third, fourth) == [True, True, False]
    fifth = ask(queue, most=1)
    assert await turns(fifth) == [False]
    queue.leave("a")
    queue.leave("a")
    assert await turns(fourth, fifth) == [False, False]
    queue.leave("a")
    assert await turns(fourth, fifth) == [True, False]
    queue.leave("a")
    assert await turns(fifth) == [True]


async def test_a_waiter_leaves_with_its_client(queue):
    listeners = []
    first, second, third = ask(queue), ask(queue, on_disconnect=listeners), ask(queue)
    await turns(first, second, third)
    [tell] = listeners
    tell()
    with pytest.raises(ClientGone):
        await second
    assert (listeners, queue.num_waiting) == ([], 1)
    queue.leave("a")
    assert await turns(third) == [True]


async def test_at_the_drain_nobody_waits_any_longer_and_what_runs_goes_on(queue):
    first, second = ask(queue), ask(queue)
    await turns(first, second)
    queue.close()
    with pytest.raises(Overloaded, match="shutting down"):
        await second
    with pytest.raises(Overloaded):
        await queue.enter("a", 1, PATIENT)
    queue.leave("a")
    assert queue.lines == {}


async def test_a_turn_that_came_as_its_task_was_cancelled_is_passed_on(queue):
    first, second, third = ask(queue), ask(queue), ask(queue)
    await turns(first, second, third)
    queue.leave("a")  # the second one's turn has come, and it has not run yet
    second.cancel()
    assert await turns(third) == [True]
    queue.leave("a")
    assert queue.lines == {}


async def test_retry_after_says_what_is_ahead_and_is_spread_by_chance(queue):
    for _ in range(2):
        await queue.enter("a", 2, PATIENT)
    queue.leave("a", seconds=8.0)
    await queue.enter("a", 2, PATIENT)
    refused = queue.refusal("a")
    assert refused.headers() == {"Retry-After": "8", "retry-after-ms": "12000"}  # two ahead, two at once, 8 s each; half as much
    queue.lines["a"].mean_seconds = 0.01
    assert queue.refusal("a").headers() == {"Retry-After": "1", "retry-after-ms": "1500"}
    queue.lines["a"].mean_seconds = 600.0
    assert queue.refusal("a").headers() == {"Retry-After": "59", "retry-after-ms": "59000"}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["enter", "leave", "cancel", "gone"])), max_size=40))
def test_no_place_is_ever_lost_or_given_twice(steps):  # noqa: C901 - a branch a step
    async def play():
        queue, running, waiting = ConcurrencyQueue(), {"a": 0, "b": 0}, {"a": [], "b": []}
        for caller, step in steps:
            if step == "enter":
                listeners = []
                waiting[caller].append((ask(queue, caller, 2, on_disconnect=listeners), listeners))
            elif step == "leave" and running[caller]:
                running[caller] -= 1
                queue.leave(caller)
            elif step == "cancel" and waiting[caller]:
                waiting[caller][0][0].cancel()
            elif step == "gone" and waiting[caller] and waiting[caller][-1][1]:
                waiting[caller][-1][1][0]()
            for name, tasks in waiting.items():
                await turns()
                running[name] += sum(task.done() and not task.cancelled() and task.exception() is None for task, _ in tasks)
                waiting[name] = [each for each in tasks if not each[0].done()]
                assert running[name] <= 2
                assert not waiting[name] or running[name] == 2
            assert queue.num_waiting == sum(map(len, waiting.values()))
        for name, tasks in waiting.items():
            for task, _ in tasks:
                task.cancel()
            await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
            for _ in range(running[name]):
                queue.leave(name)
        assert queue.lines == {}

    asyncio.run(play())
