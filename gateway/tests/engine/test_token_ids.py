"""Inputs that are ids of the model's own tokenizer, and what its tokenizer makes of texts, with MiniLM's real weights."""

import numpy as np
import pytest

from gateway.config import LimitSettings
from gateway.embedding.embedder import Inputs
from gateway.embedding.tokens import TextTokenizer
from gateway.errors import InputTooLong, InvalidValue, RequestTooLong
from gateway.tests.engine.conftest import embedded, inputs_of, local_of

HELLO = [101, 7592, 102]


def ids_of(*arrays, **more):
    return inputs_of(*[array if isinstance(array, str) else "" for array in arrays], **more, token_ids=[
        None if isinstance(array, str) else array for array in arrays
    ])  # fmt: skip


async def rows_of(local, *arrays, **more):
    prepared = await local.prepare(ids_of(*arrays, **more))
    return (await local.embed(prepared)).rows, prepared


async def test_ids_stand_as_they_are_and_equal_the_text_they_come_from(loaded, reference):
    rows, prepared = await rows_of(loaded, HELLO, [101, 102])
    np.testing.assert_allclose(rows[0], reference.encode(["hello"])[0], atol=1e-5)
    assert prepared.token_counts == [3, 2]
    bare, _ = await rows_of(loaded, [7592])
    assert float(bare[0] @ rows[0]) < 0.99  # no special tokens were put around them


async def test_texts_and_ids_may_be_mixed(loaded):
    rows, prepared = await rows_of(loaded, "a text", HELLO, "hello", [101, 102])
    alone, _ = await embedded(loaded, "a text", "hello")
    np.testing.assert_allclose(rows[[0, 2]], alone, atol=1e-5)
    np.testing.assert_allclose(rows[1], alone[1], atol=1e-5)
    assert prepared.token_counts == [4, 3, 3, 2]


@pytest.mark.parametrize(
    ("rule", "num_windows"), [("end", 1), ("chunk", 2)],
)  # fmt: skip
async def test_long_ids_follow_the_rule(loaded, rule, num_windows):
    rows, prepared = await rows_of(loaded, [101, *[1037] * 300, 102], "short", long_input=rule)
    assert (prepared.token_counts, prepared.is_long) == ([302, 3], [True, False])
    assert prepared.work.counts == [num_windows, 1]
    assert prepared.work.weights[:num_windows] == [256, 46][:num_windows]
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1], abs=1e-5)


async def test_long_ids_are_refused_by_name(loaded):
    with pytest.raises(InputTooLong, match=r"'input\[1\]': maximum input length is 256"):
        await loaded.prepare(ids_of("short", [1037] * 257, long_input="error"))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ([101, 30522], r"'input\[1\]': the integer at position 1 is no token of this model, whose ids go from 0 to 30521"),
        ([-1], "position 0"), ([2**31], "position 0"), ([], "must not be empty"),
    ],
)  # fmt: skip
async def test_what_is_no_token_is_refused_by_name(loaded, array, words):
    with pytest.raises(InvalidValue, match=words):
        await loaded.prepare(ids_of("a", array))
    with pytest.raises(InvalidValue, match=words):
        await loaded.decode(ids_of(HELLO, array), skip_special_tokens=True)


async def test_many_ids_are_refused_by_the_limits(small_model):
    local = local_of(small_model, limits=LimitSettings(max_input_tokens=40, max_request_tokens=60))
    local.load()
    try:
        with pytest.raises(InputTooLong):
            await local.prepare(ids_of([5] * 41))
        for arrays in ([[5] * 31, [6] * 30], [[5] * 31, "the " * 30]):
            with pytest.raises(RequestTooLong):
                await local.prepare(ids_of(*arrays))
        with pytest.raises(InputTooLong):
            await local.decode(ids_of([5] * 41), skip_special_tokens=True)
        with pytest.raises(RequestTooLong):
            await local.decode(ids_of([5] * 31, [5] * 30), skip_special_tokens=True)
        with pytest.raises(InputTooLong):
            await local.tokenize(inputs_of("the " * 41), add_special_tokens=False)
        with pytest.raises(RequestTooLong):
            await local.tokenize(inputs_of("the " * 31, "the " * 30), add_special_tokens=False)
    finally:
        await local.close()


async def test_a_prompt_makes_text_of_ids(small_model):
    local = local_of(small_model)
    local.load()
    try:
        rows, prepared = await rows_of(local, [2, 5, 6, 3], input_type="query")  # [CLS] the a [SEP]
        expected, as_text = await embedded(local, "the a", input_type="query")
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        assert prepared.token_counts == as_text.token_counts
    finally:
        await local.close()


async def test_ids_and_texts_have_cache_entries_of_their_own(loaded):
    from gateway.embedding.cache import keys_of

    texts = ["", "101 102", str([101, 102])]
    keys = {*keys_of(inputs_of(*texts), b"seed" * 8), *keys_of(ids_of([101, 102], [102, 101]), b"seed" * 8)}
    assert len(keys) == 5
    assert keys_of(ids_of("a", [5]), b"seed" * 8)[0] == keys_of(inputs_of("a"), b"seed" * 8)[0]


def test_some_of_the_inputs_keep_their_ids():
    inputs = ids_of("a", HELLO, [101, 102])
    assert inputs.only([2, 0]).token_ids == [[101, 102], None]
    assert isinstance(inputs, Inputs)


async def test_a_text_is_tokenised_with_offsets_in_characters(loaded, reference):
    assert isinstance(loaded, TextTokenizer)
    texts = ["hello world", "Ünï 🙂", "a " * 300]
    found = await loaded.tokenize(inputs_of(*texts), add_special_tokens=True)
    assert [tokens.ids for tokens in found] == [reference.tokenizer(text, truncation=False)["input_ids"] for text in texts]
    whole = found[0]
    assert whole.pieces == ["[CLS]", "hello", "world", "[SEP]"]
    assert whole.is_special == [True, False, False, True]
    assert [whole.text[start:stop] for start, stop in whole.offsets[1:3]] == ["hello", "world"]
    assert found[1].offsets[1:-1] == [(0, 2), (2, 3), (4, 5)]
    [bare] = await loaded.tokenize(inputs_of("hello"), add_special_tokens=False)
    assert bare.ids == [7592]


async def test_ids_are_decoded(loaded):
    assert await loaded.decode(ids_of([101, 7592, 2088, 102], HELLO), skip_special_tokens=True) == ["hello world", "hello"]
    assert await loaded.decode(ids_of(HELLO), skip_special_tokens=False) == ["[CLS] hello [SEP]"]
