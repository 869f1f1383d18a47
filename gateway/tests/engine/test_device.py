"""The device thread: bad inputs, bad vectors, and its own death."""

import asyncio

import numpy as np
import pytest

from gateway.engine.batcher import Batcher
from gateway.engine.device import MAX_RESTARTS, Device
from gateway.engine.job import NotFinite, Work
from gateway.errors import Overloaded
from gateway.metrics import Metrics
from gateway.tests.fakes import FakeEncoder

POISON = 666
# A thread that dies by an exception is what these tests are about; Python reports it through threading.excepthook.
dies = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Killed(BaseException):
    """Not an Exception, so that nothing of the device's handles it."""


class Rig:
    """A device with its queue, and whatever its encoder is told to do."""

    def __init__(self):
        metrics = Metrics().of_model("m")
        self.encoder = FakeEncoder()
        self.batcher = Batcher(max_batch_tokens=64, max_queue_tokens=1000, metrics=metrics)
        self.device = Device(encoder=self.encoder, batcher=self.batcher, metrics=metrics, on_failed=self.failed)

    def failed(self):
        self.batcher.close(Overloaded("This model's device failed."))

    def work(self, *windows):
        loop = asyncio.get_running_loop()
        work = Work("a", list(windows), np.empty((len(windows), 4), np.float32), loop, loop.create_future())
        self.batcher.submit(work)
        return work

    async def answered(self, work):
        await asyncio.wait_for(work.done, 5)
        return work.rows


@pytest.fixture
async def rig():
    rig = Rig()
    yield rig
    rig.batcher.close(Overloaded())
    await asyncio.to_thread(rig.device.join, 5)


async def test_rows_come_back_in_the_order_they_were_sent(rig):
    work = rig.work([1, 2, 3], [4], [5, 6])
    rig.device.start()
    rows = await rig.answered(work)
    expected = np.concatenate([rig.encoder.embed([ids]) for ids in work.windows])
    np.testing.assert_array_equal(rows, expected)


async def test_a_poisoned_input_fails_its_own_request_only(rig):
    rig.encoder.fails_on[POISON] = ValueError("cannot")
    good = [rig.work([number, number]) for number in range(5)]
    bad = rig.work([1, 1], [POISON, 1], [2, 2])
    rig.device.start()
    for work in good:
        await rig.answered(work)
    with pytest.raises(ValueError, match="cannot"):
        await rig.answered(bad)
    assert [len(batch) for batch in rig.encoder.batches[:2]] == [8, 4]  # one batch for all, then halves


async def test_a_vector_that_is_not_finite_never_reaches_a_client(rig):
    rig.encoder.nan_on = {POISON}
    good, bad = rig.work([1, 1]), rig.work([2, 2], [POISON, 2])
    rig.device.start()
    assert np.isfinite(await rig.answered(good)).all()
    with pytest.raises(NotFinite) as caught:
        await rig.answered(bad)
    assert caught.value.position == 1


@dies
async def test_a_dead_thread_tells_who_waited_and_is_replaced(rig):
    rig.encoder.fails_on[POISON] = Killed()
    first = rig.device.thread
    killed = rig.work([POISON])
    rig.device.start()
    with pytest.raises(Overloaded):
        await rig.answered(killed)
    assert await rig.answered(rig.work([1])) is not None
    assert rig.device.thread is not first
    assert not rig.device.failed


@dies
async def test_a_thread_that_dies_again_and_again_is_given_up(rig):
    rig.encoder.fails_on[POISON] = Killed()
    rig.device.start()
    for _ in range(MAX_RESTARTS + 1):
        with pytest.raises(Overloaded):
            await rig.answered(rig.work([POISON]))
    await asyncio.to_thread(rig.device.join, 5)
    assert rig.device.failed
    with pytest.raises(Overloaded, match="device failed"):
        rig.work([1])


async def test_closing_ends_the_thread(rig):
    rig.device.start()
    rig.batcher.close(Overloaded())
    await asyncio.to_thread(rig.device.join, 5)
    assert not rig.device.thread.is_alive()
