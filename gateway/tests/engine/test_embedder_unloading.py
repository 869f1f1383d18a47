"""A model on this machine that is unloaded and loaded again: its threads end, its memory goes, and its vectors stay the same."""

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest

from gateway.config import EngineSettings, LimitSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Unloadable
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.model_size import planned_bytes
from gateway.engine.settings import LocalSettings
from gateway.engine.shared_tokenizers import SharedTokenizers, tokenizers_of
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import OperatorError
from gateway.metrics import Metrics
from gateway.testing.small_model import small_tokenizer
from gateway.tests.engine.conftest import DATA, embedded


def local(source, name="m", shared=None, **settings):
    engine = EngineSettings(warmup_seconds=0)
    context = BackendContext(name, LimitSettings(), engine, Metrics().of_model(name), DATA, shared={} if shared is None else shared)
    return LocalEmbedder(LocalSettings(source=str(source), download=False, **settings), context)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
async def test_what_was_loaded_is_gone_and_comes_again_with_the_same_vectors(small_model, place, runtime):
    model = local(small_model, "unloaded", runtime=runtime, precision="float32")  # whose threads are told from other tests' by name
    assert isinstance(model, Unloadable)
    planned = await model.plan_load()
    before = None
    for _ in range(3):
        await model.start()
        rows, _ = await embedded(model, "the red server", "we query")
        assert before is None or np.array_equal(rows, before)
        before = rows
        kept = [weakref.ref(model.devices[0].encoder), weakref.ref(model.tokenizer), weakref.ref(model.batcher)]
        num_bytes = model.describe().num_bytes
        assert 0.5 < num_bytes / planned < 2
        await model.unload()
        gc.collect()
        assert [each() for each in kept] == [None] * 3
        assert model.health().state == "loading"
        assert model.describe().num_bytes == num_bytes
        ends_later = [each for each in threading.enumerate() if each.name == "latency-network-unloaded"]  # nothing stops it
        [each.join(60) for each in ends_later]
        assert not [each.name for each in threading.enumerate() if "unloaded" in each.name]
    await model.close()


async def test_one_that_is_closed_at_once_builds_nothing_more(small_model, place):
    model = local(small_model, "closed", runtime="openvino", precision="float32")
    await model.start()
    latency = model.devices[0].encoder.latency
    await model.close()
    assert latency.is_made.wait(60)
    assert latency.network is None
    for thread in threading.enumerate():
        if thread.name == "latency-network-closed":
            thread.join(60)


async def test_a_load_that_fails_after_its_devices_began_leaves_none_behind(small_model, place):
    model = local(small_model, runtime="openvino", precision="float32")
    start_devices = model.start_devices

    def with_another_proof(loaded):
        other = replace(loaded.proof, row=-loaded.proof.row)
        start_devices(replace(loaded, proof=other))

    model.start_devices = with_another_proof
    with pytest.raises(OperatorError, match="gives another"):
        await model.start()
    assert model.devices == []
    model.start_devices = start_devices
    await model.start()
    await model.close()


async def test_rows_and_configurations_with_the_same_tokenizer_file_share_it_until_the_last_goes(small_model, place):
    shared = {}
    first, second = (local(small_model, name, shared, runtime="openvino", precision="float32") for name in ("a", "b"))
    await first.start()
    await second.start()
    assert first.tokenizer is second.tokenizer
    kept = weakref.ref(first.tokenizer)
    await first.unload()
    assert kept() is second.tokenizer
    await first.start()
    assert first.tokenizer is second.tokenizer
    for each in (first, second):
        await each.unload()
    gc.collect()
    assert kept() is None
    for each in (first, second):
        await each.close()


def test_tokenizers_are_shared_by_their_content_from_any_thread():
    shared = {}
    tokenizers, json = tokenizers_of(shared), small_tokenizer().backend_tokenizer.to_str()
    assert tokenizers_of(shared) is tokenizers
    found = []
    threads = [threading.Thread(target=lambda: found.append(tokenizers.get(json))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    other = tokenizers.get(json.replace('"blue"', '"azure"'))
    assert other is not found[0]
    assert isinstance(other, Tokenizer)
    assert SharedTokenizers().get(json) is not found[0]


def test_a_model_of_which_no_file_is_here_has_no_known_size():
    assert planned_bytes(None, None, None) == 0
