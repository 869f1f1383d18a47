"""The device threads: bad inputs, bad vectors, too little memory, several on one queue, and their death."""

import asyncio
import threading

import numpy as np
import pytest
from structlog.testing import capture_logs

from gateway.background import BackgroundThread
from gateway.engine.batcher import Batcher
from gateway.engine.budget import MIN_TOKENS, RECOVERY_BATCHES, Budget
from gateway.engine.device import MAX_RESTARTS, Device
from gateway.engine.encoder import Window
from gateway.engine.work import NotFinite, TooLarge, Work
from gateway.errors import ModelUnavailable, Overloaded
from gateway.metrics import Metrics
from gateway.testing.fakes import FakeEncoder

POISON = 666


class Killed(BaseException):
    """Not an Exception, so that nothing of the device's handles it."""


class Unstartable(BackgroundThread):
    """As of a process that may have no more threads."""

    def start(self):
        raise RuntimeError("can't start new thread")


async def until(is_true):
    async with asyncio.timeout(5):
        while not is_true():
            await asyncio.sleep(0.005)


class Rig:
    """Devices with their queue, and whatever their encoders are told to do."""

    def __init__(self, *, num_devices=1):
        self.metrics = Metrics().of_model("m")
        self.encoders = [FakeEncoder() for _ in range(num_devices)]
        self.encoder = self.encoders[0]
        self.budget = Budget(64, self.metrics)
        self.batcher = Batcher(budget=self.budget, max_queue_tokens=10_000, metrics=self.metrics, num_devices=num_devices)
        self.devices = [
            Device(encoder=encoder, batcher=self.batcher, metrics=self.metrics, on_failed=self.failed) for encoder in self.encoders
        ]
        self.device = self.devices[0]

    def failed(self):
        self.batcher.close(ModelUnavailable("Its device fails."))

    def start(self):
        for device in self.devices:
            device.start()

    def work(self, *windows):
        loop = asyncio.get_running_loop()
        windows = [Window(ids) for ids in windows]
        work = Work("a", windows, np.empty((len(windows), 4), np.float32), loop, loop.create_future())
        self.batcher.submit(work)
        return work

    async def answered(self, work):
        await asyncio.wait_for(work.done, 5)
        return work.rows

    async def close(self):
        self.batcher.close(Overloaded())
        for device in self.devices:
            await asyncio.to_thread(device.join, 5)


def expected(work):
    return FakeEncoder().embed(work.windows)


@pytest.fixture
async def rig():
    rig = Rig()
    yield rig
    await rig.close()


async def test_rows_come_back_in_the_order_they_were_sent(rig):
    work = rig.work([1, 2, 3], [4], [5, 6])
    rig.start()
    np.testing.assert_array_equal(await rig.answered(work), expected(work))


async def test_a_poisoned_input_fails_its_own_request_only(rig):
    rig.encoder.fails_on[POISON] = ValueError("cannot")
    good = [rig.work([number, number]) for number in range(5)]
    bad = rig.work([1, 1], [POISON, 1], [2, 2])
    rig.start()
    for work in good:
        await rig.answered(work)
    with pytest.raises(ValueError, match="cannot"):
        await rig.answered(bad)
    assert [len(batch) for batch in rig.encoder.batches[:2]] == [8, 4]  # one batch for all, then halves


async def test_a_vector_that_is_not_finite_never_reaches_a_client(rig):
    rig.encoder.nan_on = {POISON}
    good, bad = rig.work([1, 1]), rig.work([2, 2], [POISON, 2])
    rig.start()
    assert np.isfinite(await rig.answered(good)).all()
    with pytest.raises(NotFinite) as caught:
        await rig.answered(bad)
    assert caught.value.position == 1


async def test_devices_of_one_queue_work_at_the_same_time():
    """Each batch waits for one of the other device: alone, neither would end its first."""
    rig = Rig(num_devices=2)
    meeting = threading.Barrier(2, timeout=5)
    for encoder in rig.encoders:
        encoder.meeting = meeting
    work = rig.work(*([number] * 16 for number in range(24)))  # six batches of four
    rig.start()
    np.testing.assert_array_equal(await rig.answered(work), expected(work))
    assert [len(encoder.batches) for encoder in rig.encoders] == [3, 3]
    await rig.close()


async def test_out_of_memory_halves_the_budget_and_everybody_is_answered(rig):
    rig.budget = rig.batcher.budget = Budget(1024, rig.metrics)
    rig.encoder.room = 300
    works = [rig.work(*([number, work] * 8 for number in range(8))) for work in range(8)]  # 1,024 tokens
    rig.start()
    for work in works:
        np.testing.assert_array_equal(await rig.answered(work), expected(work))
    assert rig.budget.max_tokens == 256
    rig.encoder.batches.clear()
    await rig.answered(rig.work(*([number] * 16 for number in range(60))))
    assert max(map(sum, rig.encoder.batches)) <= 256


async def test_an_input_too_large_for_the_device_fails_its_own_request_only(rig):
    rig.budget = rig.batcher.budget = Budget(1024, rig.metrics)
    rig.encoder.room = 200
    good = [rig.work([number] * 190) for number in range(2)]
    bad = rig.work([1] * 190, [2] * 201)
    rig.start()
    with pytest.raises(TooLarge) as caught:
        await rig.answered(bad)
    assert caught.value.position == 1
    for work in good:
        np.testing.assert_array_equal(await rig.answered(work), expected(work))


async def test_a_poisoned_input_leaves_the_budget_alone(rig):
    rig.encoder.fails_on[POISON] = ValueError("cannot")
    bad = rig.work([1, 1], [POISON, 1])
    rig.start()
    with pytest.raises(ValueError, match="cannot"):
        await rig.answered(bad)
    assert rig.budget.max_tokens == 64


def test_two_devices_out_of_memory_at_once_halve_the_budget_once():
    budget = Budget(4096, Metrics().of_model("m"))
    budget.shrink(4096)
    budget.shrink(4096)
    assert budget.max_tokens == 2048


def test_the_budget_has_a_floor_and_comes_back_slowly():
    metrics = Metrics()
    budget = Budget(500, metrics.of_model("m"))
    budget.shrink(8)
    assert budget.max_tokens == MIN_TOKENS
    for _ in range(RECOVERY_BATCHES - 1):
        budget.on_success()
    assert budget.max_tokens == MIN_TOKENS
    budget.on_success()
    assert budget.max_tokens == 2 * MIN_TOKENS
    for _ in range(RECOVERY_BATCHES):
        budget.on_success()
    assert budget.max_tokens == 500
    assert metrics.registry.get_sample_value("gateway_max_batch_tokens", {"model": "m"}) == 500


def test_a_budget_below_the_floor_is_not_raised_by_want_of_memory():
    budget = Budget(64, Metrics().of_model("m"))
    budget.shrink(64)
    assert budget.max_tokens == 64


async def test_a_dead_thread_tells_who_waited_and_is_replaced(rig):
    rig.encoder.fails_on[POISON] = Killed()
    first = rig.device.thread
    killed = rig.work([POISON])
    with capture_logs() as lines:
        rig.start()
        with pytest.raises(ModelUnavailable):
            await rig.answered(killed)
        assert await rig.answered(rig.work([1])) is not None
        await until(lambda: any(line["event"] == "device_died" for line in lines))
    told = [(line["event"], line["reason"]) for line in lines if line["event"].endswith("_died")]
    assert told == [("thread_died", "Killed"), ("device_died", "Killed")]
    assert rig.device.thread is not first
    assert not rig.device.failed


async def test_a_thread_that_dies_again_and_again_is_given_up(rig):
    rig.encoder.fails_on[POISON] = Killed()
    rig.start()
    for _ in range(MAX_RESTARTS + 1):
        with pytest.raises(ModelUnavailable):
            await rig.answered(rig.work([POISON]))
    await asyncio.to_thread(rig.device.join, 5)
    assert rig.device.failed
    with pytest.raises(ModelUnavailable, match="device fails"):
        rig.work([1])


async def test_a_dead_thread_that_cannot_be_replaced_is_given_up_at_once(rig, monkeypatch):
    rig.encoder.fails_on[POISON] = Killed()
    killed = rig.work([POISON])
    monkeypatch.setattr(rig.device, "new_thread", lambda: Unstartable("device", print))
    rig.start()
    with pytest.raises(ModelUnavailable):
        await rig.answered(killed)
    await until(lambda: rig.device.failed)
    with pytest.raises(ModelUnavailable, match="device fails"):
        rig.work([1])


async def test_a_device_that_runs_nothing_any_more_is_given_up_however_long_it_takes(rig):
    """What CUDA does after an illegal access: every batch fails, though no input is to blame."""
    rig.start()
    assert await rig.answered(rig.work([1])) is not None
    rig.encoder.fails_on = dict.fromkeys(range(10), RuntimeError("an illegal memory access was encountered"))
    for _ in range(MAX_RESTARTS + 1):
        with pytest.raises(ModelUnavailable):
            await rig.answered(rig.work([1], [2]))
        rig.device.deaths.clear()  # as if each had been minutes after the one before
    await asyncio.to_thread(rig.device.join, 5)
    assert rig.device.failed
    with pytest.raises(ModelUnavailable, match="device fails"):
        rig.work([1])


async def test_many_poisoned_inputs_do_not_make_a_device_look_broken(rig):
    rig.encoder.fails_on[POISON] = ValueError("cannot")
    rig.start()
    for _ in range(3 * MAX_RESTARTS):
        with pytest.raises(ValueError, match="cannot"):
            await rig.answered(rig.work([POISON], [POISON, 1]))
    assert not rig.device.failed
    assert not rig.device.deaths


async def test_closing_ends_the_thread(rig):
    rig.start()
    rig.batcher.close(Overloaded())
    await asyncio.to_thread(rig.device.join, 5)
    assert not rig.device.thread.is_running
