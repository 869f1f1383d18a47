"""The torch encoder, on the CPU: several on one queue, too little memory. At the end, what only a CUDA device can show."""

import asyncio
import threading

import msgspec
import numpy as np
import pytest
import torch

from gateway.config import EngineSettings
from gateway.engine import runtime
from gateway.engine.device import MAX_RESTARTS
from gateway.engine.encoder import OutOfMemory, Window
from gateway.engine.fidelity import MIN_COSINE, cosines
from gateway.engine.identity import identity_of
from gateway.engine.loaded_model import LoadedModel
from gateway.engine.runtime import compiles
from gateway.engine.settings import LocalSettings
from gateway.engine.torch_encoder import TorchEncoder, choose_devices
from gateway.errors import ModelUnavailable, OperatorError, Unembeddable
from gateway.testing.folder import folder_of
from gateway.tests.engine.conftest import MINILM, embedded, local_of, unload

TEXTS = ["a few words of text " * (1 + number % 7) + str(number) for number in range(60)]
LONG = "a " * 250

has_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


class Killed(BaseException):
    """Not an Exception, so that nothing of the device's handles it."""


def minilm(*, device="cpu", precision="float32"):
    return TorchEncoder(folder_of(MINILM, download=False), device=device, precision=precision, threads=0)


def served(*encoders, warmup_seconds=0.0, **engine):
    """MiniLM as an embedder through these encoders."""
    local = local_of(MINILM, engine=EngineSettings(warmup_seconds=warmup_seconds, **engine), runtime="torch")
    local.start_devices(LoadedModel(list(encoders), identity_of(folder_of(MINILM, download=False))))
    return local


def before_each_batch(encoder, act):
    """`act` is told the padded tokens of every batch the network is about to run."""

    def hook(_, args):
        act(args[0]["input_ids"].numel())  # what a hook returned would replace the input

    encoder.model[0].register_forward_pre_hook(hook)


def allocates_too_much():
    torch.empty(2**60, dtype=torch.uint8)


def says_cuda_is_full():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def runs_out_above(encoder, max_tokens, fail):
    """The lengths in tokens of the batches that ran, once they do."""
    ran = []

    def act(num_tokens):
        if num_tokens > max_tokens:
            fail()
        ran.append(num_tokens)

    before_each_batch(encoder, act)
    return ran


async def test_two_encoders_share_one_queue(reference):
    """The first batch of each waits for the other's: alone, neither would begin."""
    encoders = [minilm(), minilm()]
    meeting, counts = threading.Barrier(2, timeout=30), [0, 0]

    def counting(number):
        def act(_):
            counts[number] += 1
            if counts[number] == 1:
                meeting.wait()

        return act

    for number, encoder in enumerate(encoders):
        before_each_batch(encoder, counting(number))
    local = served(*encoders, max_batch_tokens=256)
    rows, _ = await embedded(local, *TEXTS)
    np.testing.assert_allclose(rows, reference.encode(TEXTS), atol=1e-5)
    assert min(counts) >= 1
    assert local.batcher.num_devices == 2
    unload(local)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_where_one_of_two_devices_dies_the_other_goes_on(reference):
    broken, sound = minilm(), minilm()
    is_broken = threading.Event()

    def die(_):
        is_broken.set()
        raise Killed

    before_each_batch(broken, die)
    before_each_batch(sound, lambda _: is_broken.wait(30))  # until then it leaves the other something
    local = served(broken, sound)
    broken_device = local.devices[0]
    while not broken_device.failed:
        asked = await asyncio.gather(*(embedded(local, text) for text in TEXTS[:8]), return_exceptions=True)
        assert all(isinstance(answer, tuple | ModelUnavailable) for answer in asked)
    assert len(broken_device.deaths) == MAX_RESTARTS + 1
    assert local.health().state != "failed"
    rows, _ = await embedded(local, *TEXTS)
    np.testing.assert_allclose(rows, reference.encode(TEXTS), atol=1e-5)
    unload(local)


@pytest.mark.parametrize("fail", [says_cuda_is_full, allocates_too_much])
async def test_out_of_memory_fails_nobody_and_makes_later_batches_smaller(fail, reference):
    encoder = minilm()
    ran = runs_out_above(encoder, 300, fail)
    local = served(encoder)
    answers = await asyncio.gather(*(embedded(local, *TEXTS[start : start + 20]) for start in range(0, 60, 20)))
    np.testing.assert_allclose(np.concatenate([rows for rows, _ in answers]), reference.encode(TEXTS), atol=1e-5)
    assert local.batcher.budget.max_tokens <= 300
    ran.clear()
    budget = local.batcher.budget.max_tokens
    await embedded(local, *TEXTS)
    assert max(ran) <= budget == local.batcher.budget.max_tokens  # nothing failed again
    unload(local)


async def test_a_text_too_large_for_the_device_is_named_and_the_others_are_answered(reference):
    encoder = minilm()
    runs_out_above(encoder, 200, says_cuda_is_full)
    local = served(encoder)
    bad, good = await asyncio.gather(embedded(local, "short", LONG), embedded(local, *TEXTS[:30]), return_exceptions=True)
    assert isinstance(bad, Unembeddable)
    assert bad.message == "The model cannot embed 'input[1]': its device has too little memory for it."
    np.testing.assert_allclose(good[0], reference.encode(TEXTS[:30]), atol=1e-5)
    unload(local)


async def test_another_failure_is_not_taken_for_want_of_memory():
    encoder = minilm()

    def fail(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    before_each_batch(encoder, fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        encoder.embed([Window([101, 102])])


def test_what_a_failed_attempt_held_is_free_when_it_is_reported():
    """On a GPU the next attempt needs that memory."""
    import weakref

    encoder, held = minilm(), []

    def fail(_):
        tensor = torch.empty(1000)
        held.append(weakref.ref(tensor))
        raise torch.OutOfMemoryError

    before_each_batch(encoder, fail)
    with pytest.raises(OutOfMemory) as caught:
        encoder.embed([Window([101, 102])])
    assert caught.value.__context__ is None
    assert held[0]() is None


async def test_warming_up_finds_the_largest_batch_that_fits():
    encoder = minilm()
    ran = runs_out_above(encoder, 700, says_cuda_is_full)
    local = served(encoder, warmup_seconds=60.0, max_batch_tokens=4096)
    assert local.batcher.budget.max_tokens <= 700
    assert {1 * 8, 1 * 256, local.batcher.budget.max_tokens // 256 * 256} <= set(
        ran
    )  # single texts, and a full batch of the longest
    unload(local)


def test_a_device_is_chosen_by_its_name():
    assert choose_devices("cpu") == ["cpu"]
    everything = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    assert choose_devices("auto") == (everything or ["cpu"])
    with pytest.raises(OperatorError, match=rf"'cuda:77' is not on this machine: torch sees {len(everything)} CUDA devices"):
        choose_devices("cuda:77")


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a CUDA device")
def test_cuda_where_there_is_none_is_one_clear_line():
    with pytest.raises(OperatorError, match="'cuda' is not on this machine: torch sees 0 CUDA devices"):
        choose_devices("cuda")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "cuda:0,cuda:2"])
def test_a_device_may_be_written_so(device):
    assert msgspec.convert({"source": "s", "device": device}, LocalSettings).device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda,cpu", "cuda:0,", "cpu:1", "cuda:0 cuda:1"])
def test_and_not_so(device):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"source": "s", "device": device}, LocalSettings)


def test_a_driver_alone_makes_no_use_of_cuda(tmp_path, monkeypatch):
    """A torch built for the CPU cannot use the GPU, whatever is installed beside it: there a model is compiled."""
    (tmp_path / "version").write_text("NVRM")
    monkeypatch.setattr(runtime, "DRIVERS", (str(tmp_path / "version"),))
    assert compiles(LocalSettings(source="s")) == (not runtime.torch_is_for_cuda())
    assert compiles(LocalSettings(source="s", device="cpu"))
    assert not compiles(LocalSettings(source="s", device="cuda:0,cuda:1"))


@has_cuda
@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float32"])
def test_vectors_from_cuda_are_encodes_own(precision, reference):
    encoder = minilm(device="cuda:0", precision=precision)
    windows = [Window(reference.tokenizer(text)["input_ids"]) for text in [*TEXTS, LONG]]
    rows, expected = encoder.embed(windows), reference.encode([*TEXTS, LONG])
    assert cosines(rows, expected).min() >= (0.99999 if precision == "float32" else MIN_COSINE)
    alone = np.concatenate([encoder.embed([window]) for window in windows])
    assert cosines(rows, alone).min() >= MIN_COSINE


@has_cuda
async def test_every_cuda_device_serves(reference):
    local = local_of(MINILM, device="cuda", engine=EngineSettings(warmup_seconds=5))
    await local.start()
    assert local.describe().device == ",".join(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    assert len(local.devices) == torch.cuda.device_count()
    rows, _ = await embedded(local, *TEXTS)
    assert cosines(rows, reference.encode(TEXTS)).min() >= MIN_COSINE
    await local.close()


@has_cuda
async def test_a_full_cuda_device_fails_nobody(reference):
    """It really is full: this process may take a gigabyte and a half, and asks for more."""
    encoder = minilm(device="cuda:0", precision="float32")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(0) + 2**29) / total, 0)
    try:
        local = served(encoder, max_batch_tokens=1_000_000, max_queue_tokens=2_000_000)
        rows, _ = await embedded(local, *[LONG] * 2000)
        assert cosines(rows, np.repeat(reference.encode([LONG]), 2000, axis=0)).min() >= MIN_COSINE
        assert local.batcher.budget.max_tokens < 1_000_000
        unload(local)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
