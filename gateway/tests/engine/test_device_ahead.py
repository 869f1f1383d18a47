"""A device that works beside its thread: the next batch is formed and launched while one runs. The encoder is a fake."""

import numpy as np
import pytest
from structlog.testing import capture_logs

from gateway.engine.batcher import AHEAD_SHARE
from gateway.errors import ModelUnavailable
from gateway.testing.fakes import FakeAsyncEncoder
from gateway.tests.engine.test_device import POISON, Killed, Rig, expected, until


class AsyncRig(Rig):
    """Its device computes when it is allowed to."""

    def __init__(self):
        super().__init__()
        self.encoder = self.device.encoder = FakeAsyncEncoder()


@pytest.fixture
async def rig():
    rig = AsyncRig()
    yield rig
    rig.encoder.may_finish.set()
    await rig.close()


def full(rig, *, ids=7):
    """A request that fills a batch of its own."""
    return rig.work(*[[ids] * 16 for _ in range(rig.budget.max_tokens // 16)])


async def test_the_next_batch_is_launched_while_one_runs(rig):
    rig.encoder.may_finish.clear()
    first, second, third = (full(rig, ids=number) for number in (1, 2, 3))
    rig.start()
    await until(lambda: rig.encoder.num_launched == 2)
    assert not first.done.done()
    rig.encoder.may_finish.set()
    for work in (first, second, third):
        np.testing.assert_array_equal(await rig.answered(work), expected(work))
    assert rig.encoder.order == ["launch", "launch", "wait", "launch", "wait", "wait"]


async def test_little_work_waits_for_company(rig):
    """What is formed ahead cannot be joined by what arrives meanwhile."""
    rig.encoder.may_finish.clear()
    first = full(rig)
    rig.start()
    await until(lambda: rig.encoder.num_launched == 1)
    late = [rig.work([number]) for number in range(rig.budget.max_tokens // AHEAD_SHARE - 1)]
    assert rig.batcher.next_batch_ahead() == []
    rig.encoder.may_finish.set()
    for work in (first, *late):
        np.testing.assert_array_equal(await rig.answered(work), expected(work))
    assert rig.encoder.num_launched == 2


async def test_nothing_is_formed_ahead_while_another_device_is_idle(rig):
    full(rig)
    rig.batcher.num_resting = 1
    assert rig.batcher.next_batch_ahead() == []
    rig.batcher.num_resting = 0
    assert rig.batcher.next_batch_ahead()


@pytest.mark.parametrize("where", ["launch", "wait"])
async def test_a_poisoned_input_fails_its_own_request_only(rig, where):
    rig.encoder.fails_on[POISON] = ValueError("cannot")
    rig.encoder.fails_at = where
    good, bad, later = full(rig, ids=1), rig.work(*[[POISON] + [2] * 15] * 1, *[[2] * 16] * 3), full(rig, ids=3)
    rig.start()
    for work in (good, later):
        np.testing.assert_array_equal(await rig.answered(work), expected(work))
    with pytest.raises(ValueError, match="cannot"):
        await rig.answered(bad)


@pytest.mark.parametrize("where", ["launch", "wait"])
async def test_out_of_memory_halves_the_budget_and_everybody_is_answered(rig, where):
    rig.encoder.room, rig.encoder.fails_at = 32, where
    works = [full(rig, ids=number) for number in range(4)]
    rig.start()
    for work in works:
        np.testing.assert_array_equal(await rig.answered(work), expected(work))


async def test_a_thread_that_dies_fails_the_batch_that_runs_and_the_one_behind_it(rig):
    rig.encoder.may_finish.clear()
    rig.encoder.fails_on[POISON] = Killed()
    rig.encoder.fails_at = "wait"
    killed, behind = full(rig, ids=POISON), full(rig, ids=2)
    with capture_logs():  # a traceback of everything takes seconds to draw
        rig.start()
        await until(lambda: rig.encoder.num_launched == 2)
        rig.encoder.may_finish.set()
        for work in (killed, behind):
            with pytest.raises(ModelUnavailable):
                await rig.answered(work)
        await rig.answered(full(rig, ids=3))


async def test_a_batch_that_runs_is_delivered_though_the_queue_closes(rig):
    rig.encoder.may_finish.clear()
    work = full(rig)
    rig.start()
    await until(lambda: rig.encoder.num_launched == 1)
    rig.batcher.close(ModelUnavailable("It is shutting down."))
    rig.encoder.may_finish.set()
    np.testing.assert_array_equal(await rig.answered(work), expected(work))
