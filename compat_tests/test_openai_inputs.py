"""openai-python: every form of `input`, and the vectors that come back. The client asks for base64 by itself."""

import numpy as np
import pytest
import tiktoken
from openai import AsyncOpenAI, BadRequestError, OpenAI

from compat_tests.texts import DIMENSIONS, MAX_INPUTS, MODEL, SAMPLES, VERY_LONG, many
from compat_tests.truth import Truth, assert_close


@pytest.mark.parametrize("text", SAMPLES.values(), ids=SAMPLES.keys())
def test_openai_gives_the_vector_of_sentence_transformers(client: OpenAI, truth: Truth, text: str) -> None:
    answer = client.embeddings.create(model=MODEL, input=text)
    assert_close(answer.data[0].embedding, truth.vector(text))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == truth.num_tokens(text)


async def test_openai_async_gives_the_same(async_client: AsyncOpenAI, truth: Truth) -> None:
    texts = list(SAMPLES.values())
    answer = await async_client.embeddings.create(model=MODEL, input=texts)
    assert_close([row.embedding for row in answer.data], truth.vectors(texts))
    assert answer.usage.prompt_tokens == truth.num_tokens(*texts)


def test_openai_gets_what_it_sent_in_its_order(client: OpenAI, truth: Truth) -> None:
    texts = list(SAMPLES.values())
    answer = client.embeddings.create(model=MODEL, input=texts)
    backwards = client.embeddings.create(model=MODEL, input=texts[::-1])
    assert (answer.object, answer.model) == ("list", MODEL)
    assert [row.index for row in answer.data] == list(range(len(texts)))
    assert {row.object for row in answer.data} == {"embedding"}
    assert_close([row.embedding for row in answer.data], truth.vectors(texts))
    assert_close([row.embedding for row in backwards.data], truth.vectors(texts[::-1]))


@pytest.mark.parametrize("text", SAMPLES.values(), ids=SAMPLES.keys())
def test_openai_token_ids_are_the_text_they_stand_for(client: OpenAI, text: str) -> None:
    ids = tiktoken.get_encoding("cl100k_base").encode_ordinary(text)
    of_text = client.embeddings.create(model=MODEL, input=text)
    of_ids = client.embeddings.create(model=MODEL, input=ids)
    assert len(of_ids.data) == 1
    assert of_ids.data[0].embedding == of_text.data[0].embedding
    assert of_ids.usage == of_text.usage


def test_openai_arrays_of_token_ids_are_many_inputs(client: OpenAI, truth: Truth) -> None:
    texts = list(SAMPLES.values())
    ids = tiktoken.get_encoding("cl100k_base").encode_ordinary_batch(texts)
    of_texts = client.embeddings.create(model=MODEL, input=texts)
    of_ids = client.embeddings.create(model=MODEL, input=ids)
    assert_close([row.embedding for row in of_ids.data], truth.vectors(texts))
    assert [row.embedding for row in of_ids.data] == [row.embedding for row in of_texts.data]
    assert of_ids.usage == of_texts.usage


def test_openai_token_ids_may_break_a_character_or_be_special(client: OpenAI, truth: Truth) -> None:
    encoding = tiktoken.get_encoding("cl100k_base")
    half = encoding.encode_ordinary("a 🜁")[:-1]
    special = [*encoding.encode_ordinary("the end"), encoding.eot_token]
    answer = client.embeddings.create(model=MODEL, input=[half, special])
    assert "\ufffd" in encoding.decode(half)
    assert_close([row.embedding for row in answer.data], truth.vectors([encoding.decode(half), encoding.decode(special)]))


def test_openai_sends_2048_inputs_at_once(client: OpenAI, truth: Truth) -> None:
    texts = many(MAX_INPUTS)
    answer = client.embeddings.create(model=MODEL, input=texts)
    assert_close([row.embedding for row in answer.data], truth.vectors(texts))
    assert answer.usage.total_tokens == truth.num_tokens(*texts)


@pytest.mark.parametrize("inputs", [many(MAX_INPUTS + 1), [[1]] * (MAX_INPUTS + 1)], ids=["texts", "token ids"])
def test_openai_is_refused_2049_inputs(client: OpenAI, inputs: list[str]) -> None:
    with pytest.raises(BadRequestError, match=r"Invalid 'input': array length must be 2048 or less\.") as caught:
        client.embeddings.create(model=MODEL, input=inputs)
    assert (caught.value.code, caught.value.param) == ("array_above_max_length", "input")


def test_openai_one_array_of_more_than_2048_token_ids_is_one_input(client: OpenAI, truth: Truth) -> None:
    encoding = tiktoken.get_encoding("cl100k_base")
    ids = encoding.encode_ordinary(VERY_LONG)
    assert len(ids) > MAX_INPUTS
    answer = client.embeddings.create(model=MODEL, input=ids)
    assert_close([row.embedding for row in answer.data], truth.vectors([VERY_LONG]))
    assert answer.usage.prompt_tokens == truth.num_tokens(VERY_LONG)


def test_openai_vectors_have_length_one(client: OpenAI) -> None:
    rows = np.array([row.embedding for row in client.embeddings.create(model=MODEL, input=list(SAMPLES.values())).data])
    assert rows.shape == (len(SAMPLES), DIMENSIONS)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
