"""The whole of a local model, with MiniLM's real weights, against sentence-transformers' own `encode`."""

import asyncio
import random
import threading

import numpy as np
import pytest

from gateway.config import EngineSettings, LimitSettings
from gateway.engine.embedder import TOKENIZER_THREADS
from gateway.engine.encoder import Window
from gateway.errors import InputTooLong, Overloaded, RequestTooLong, Unembeddable
from gateway.tests.engine.conftest import embedded, inputs_of, local_of

TEXTS = [
    "Hello, world",
    "a",
    " ",
    "The quick brown fox jumps over the lazy dog. " * 3,
    "Grüße aus Köln – naïve café",
    "你好，世界 مرحبا नमस्ते 🙂👍🏽",
    "def f(x):\n\treturn x ** 2  # code",
    "x\x00y\ufffdz",
    "word " * 200,
    "supercalifragilisticexpialidocious" * 5,
]
LONG = " ".join(f"sentence number {number} says something else" for number in range(300))


def test_compiled_models_may_have_a_folder_of_their_own(tmp_path):
    assert local_of("m", data_dir=tmp_path).artifacts.folder == tmp_path / "models"
    engine = EngineSettings(models_dir=str(tmp_path / "read-only"))
    assert local_of("m", engine=engine, data_dir=tmp_path).artifacts.folder == tmp_path / "read-only"


async def test_vectors_are_encodes_own(loaded, reference):
    rows, _ = await embedded(loaded, *TEXTS)
    np.testing.assert_allclose(rows, reference.encode(TEXTS), atol=1e-5)
    assert rows.dtype == np.float32


async def test_usage_counts_the_models_own_tokens(loaded, reference):
    _, prepared = await embedded(loaded, *TEXTS)
    tokenizer = reference.tokenizer
    assert prepared.token_counts == [len(tokenizer(text, truncation=False)["input_ids"]) for text in TEXTS]


async def test_a_short_text_does_not_wait_for_the_tokenizing_of_long_ones(loaded):
    are_done = threading.Event()
    for _ in range(TOKENIZER_THREADS):
        loaded.pool.submit(are_done.wait)
    try:
        assert (await loaded.prepare(inputs_of("a short text"))).token_counts == [5]
        long = asyncio.create_task(loaded.prepare(inputs_of("a short text" * 30)))
        await asyncio.sleep(0)  # in which a short one would have been tokenised
        assert not long.done()
    finally:
        are_done.set()
    assert (await long).num_tokens > 90


async def test_company_never_changes_a_vector(loaded):
    alone = [(await embedded(loaded, text))[0][0] for text in TEXTS]
    shuffled = random.Random(3).sample(TEXTS * 4, 4 * len(TEXTS))
    answers = await asyncio.gather(*(embedded(loaded, *shuffled[start : start + 8]) for start in range(0, 40, 8)))
    together = np.concatenate([rows for rows, _ in answers])
    for text, row in zip(shuffled, together, strict=True):
        np.testing.assert_allclose(row, alone[TEXTS.index(text)], atol=1e-5)


async def test_a_long_text_is_the_weighted_mean_of_its_windows(loaded, reference):
    rows, prepared = await embedded(loaded, LONG, "short")
    content = reference.tokenizer(LONG, add_special_tokens=False)["input_ids"]
    windows = [content[start : start + 254] for start in range(0, len(content), 254)]
    parts = loaded.devices[0].encoder.embed([Window([101, *window, 102]) for window in windows])
    mean = np.average(parts, axis=0, weights=[len(window) for window in windows])
    np.testing.assert_allclose(rows[0], mean / np.linalg.norm(mean), atol=1e-5)
    assert prepared.is_long == [True, False]
    assert prepared.token_counts[0] == len(content) + 2


async def test_end_keeps_the_first_window_as_sentence_transformers_does(loaded, reference):
    rows, prepared = await embedded(loaded, LONG, long_input="end")
    np.testing.assert_allclose(rows, reference.encode([LONG]), atol=1e-5)
    assert prepared.is_long == [True]


async def test_error_refuses_a_long_text_by_name(loaded):
    with pytest.raises(InputTooLong, match=r"Invalid 'input\[1\]': maximum input length is 256 tokens"):
        await loaded.prepare(inputs_of("short", LONG, long_input="error"))


async def test_a_text_of_exactly_the_models_length_is_not_long(loaded):
    fits, too_long = await loaded.prepare(inputs_of("a " * 254)), await loaded.prepare(inputs_of("a " * 255))
    assert (fits.token_counts, fits.is_long) == ([256], [False])
    assert (too_long.token_counts, too_long.is_long) == ([257], [True])


@pytest.mark.parametrize("text", ["a " * 20_000, "b" * 400_000], ids=["by its tokens", "by its characters"])
async def test_a_text_that_cannot_fit_is_refused(loaded, text):
    with pytest.raises(InputTooLong, match=r"'input\[0\]': maximum input length is 16384 tokens"):
        await loaded.prepare(inputs_of(text))


@pytest.mark.parametrize("texts", [["a " * 900] * 2, ["b" * 10_000] * 3], ids=["by its tokens", "by its characters"])
async def test_a_request_of_too_many_tokens_is_refused(loaded, texts):
    loaded.preprocessor.limits = LimitSettings(max_input_tokens=1000, max_request_tokens=1500)
    try:
        with pytest.raises(RequestTooLong, match="max 1500 tokens per request"):
            await loaded.prepare(inputs_of(*texts))
    finally:
        loaded.preprocessor.limits = LimitSettings()


async def test_a_client_who_leaves_takes_its_work_along(loaded):
    prepared = await loaded.prepare(inputs_of(*["some words that take a while " * 20] * 200))
    task = asyncio.create_task(loaded.embed(prepared))
    while not loaded.batcher.works:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert loaded.batcher.num_tokens == 0


async def test_a_full_queue_refuses_and_what_waits_is_still_answered(small_model):
    local = local_of(small_model)
    local.load()
    local.batcher.max_queue_tokens = 1000
    try:
        answers = await asyncio.gather(*(embedded(local, *["the a of"] * 60) for _ in range(40)), return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, Overloaded)]
        answered = [answer for answer in answers if isinstance(answer, tuple)]
        assert len(refused) + len(answered) == 40
        assert refused
        assert answered
    finally:
        await local.close()


async def test_prompts_and_models_without_normalize(small_model):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(small_model), device="cpu", local_files_only=True)
    local = local_of(small_model, precision="float32")
    await local.start()
    try:
        texts = ["the red server", "a blue vector and a text"]
        for input_type in (None, "query", "document"):
            expected = model.encode(texts, prompt_name=input_type) if input_type else model.encode(texts, prompt="")
            raw, _ = await embedded(local, *texts, input_type=input_type, normalize=False)
            np.testing.assert_allclose(raw, expected, atol=1e-5)
            unit, _ = await embedded(local, *texts, input_type=input_type)
            np.testing.assert_allclose(unit, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
        assert not np.allclose(np.linalg.norm(raw, axis=1), 1, atol=0.1)
    finally:
        await local.close()


async def test_a_vector_that_is_not_finite_names_its_input(small_model):
    import torch

    local = local_of(small_model, runtime="torch")
    await local.start()
    try:
        embeddings = local.devices[0].encoder.model[0].auto_model.embeddings.word_embeddings
        with torch.no_grad():
            embeddings.weight[local.tokenizer.fast.token_to_id("red")] = float("nan")
        with pytest.raises(Unembeddable, match=r"input\[1\]"):
            await embedded(local, "the blue " * 40, "the red", "a text")
        rows, _ = await embedded(local, "a text")
        assert np.isfinite(rows).all()
    finally:
        await local.close()


async def test_closing_fails_what_waits_and_ends_the_thread(small_model):
    local = local_of(small_model)
    await local.start()
    prepared = await local.prepare(inputs_of(*["the a of"] * 2000))
    task = asyncio.create_task(local.embed(prepared))
    while not local.batcher.works:
        await asyncio.sleep(0)
    await local.close()
    with pytest.raises(Overloaded):
        await task
    assert local.devices
    assert not any(device.thread.is_running for device in local.devices)
    await local.close()


async def test_a_model_loads_when_it_is_its_turn(small_model):
    local = local_of(small_model, runtime="torch", precision="float32")
    async with local.load_lock:
        starting = asyncio.create_task(local.start())
        await asyncio.sleep(0.05)
        assert (local.health().state, local.devices) == ("loading", [])
    await starting
    assert local.health().state == "ready"
    await local.close()


async def test_a_model_that_is_closed_while_it_loads_leaves_no_thread_behind(small_model):
    local = local_of(small_model, runtime="torch", precision="float32")
    local.is_closed = True  # as `close` leaves it, which finds no device yet
    await asyncio.to_thread(local.load)
    assert local.devices
    assert not any(device.thread.is_running for device in local.devices)
    await local.close()


async def test_weight_and_class_of_service_reach_the_batcher(loaded):
    """Neither is set by anybody yet, and each is refused there if it is none."""
    with pytest.raises(ValueError, match="a weight of 0"):
        await embedded(loaded, "a", weight=0)
    with pytest.raises(KeyError, match="nonsense"):
        await embedded(loaded, "a", service_class="nonsense")
    for service_class in ("interactive", "background"):
        rows, _ = await embedded(loaded, "a", weight=2.5, service_class=service_class)
        assert rows.shape == (1, 384)
