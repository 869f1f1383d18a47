"""One thread a device: as many GPUs as there are, so many device threads, each on its own encoder for as long as it lives."""

import threading
from dataclasses import replace

import pytest

from gateway.engine.runtime import LoadedModel
from gateway.testing.fakes import FakeEncoder
from gateway.tests.engine.conftest import embedded, local_of
from gateway.tests.engine.test_embedder_no_vector import identity

dies = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class OfADevice(FakeEncoder):
    """Notes which threads run it, and how many at once."""

    def __init__(self, device, folder, meeting):
        super().__init__()
        tokenizer_json = (folder / "tokenizer.json").read_text()
        self.info = replace(self.info, device=device, tokenizer_json=tokenizer_json, default_max_batch_tokens=16)
        self.all_at_once = meeting
        self.threads = set()
        self.is_busy = threading.Lock()

    def embed(self, windows):
        if threading.current_thread().name.startswith("warm-up"):
            return super().embed(windows)
        self.threads.add(threading.get_ident())
        assert self.is_busy.acquire(blocking=False), "two threads on one device"
        try:
            self.all_at_once.wait()
            return super().embed(windows)
        finally:
            self.is_busy.release()


def threads_of(name):
    return {thread for thread in threading.enumerate() if thread.name == f"device-{name}"}


@pytest.mark.parametrize("num_devices", [1, 4, 16])
async def test_each_device_has_one_thread_of_its_own(num_devices, small_model, tmp_path):
    """No batch ends before all devices have one, so each thread must have taken its device's."""
    local = local_of(small_model, data_dir=tmp_path)
    others = threads_of(local.name)  # of models that other tests share
    meeting = threading.Barrier(num_devices, timeout=5)
    encoders = [OfADevice(f"cuda:{number}", small_model, meeting) for number in range(num_devices)]
    local.start_devices(LoadedModel(list(encoders), identity()))
    assert len(threads_of(local.name) - others) == len(local.devices) == local.batcher.num_devices == num_devices
    rows, _ = await embedded(local, *["red server in the long text of a model"] * 3 * num_devices)
    assert len(rows) == 3 * num_devices
    assert [len(encoder.threads) for encoder in encoders] == [1] * num_devices
    assert len(set().union(*(encoder.threads for encoder in encoders))) == num_devices
    await local.close()
    assert threads_of(local.name) <= others
