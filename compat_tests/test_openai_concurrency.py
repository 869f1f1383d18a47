"""openai-python: many requests at once."""

import asyncio

import tiktoken
from openai import AsyncOpenAI

from compat_tests.process import Gateway
from compat_tests.texts import MODEL, SAMPLES, prose
from compat_tests.truth import Truth, assert_close

NUM_REQUESTS = 32


async def test_openai_32_requests_at_once_each_get_their_own_vectors(async_client: AsyncOpenAI, truth: Truth) -> None:
    """Of different lengths and numbers of inputs, so that they share batches."""
    requests = [[prose(1 + (seed * 13 + place * 29) % 60, seed) for place in range(1 + seed % 5)] for seed in range(NUM_REQUESTS)]
    expected = [truth.vectors(texts) for texts in requests]
    answers = await asyncio.gather(*(async_client.embeddings.create(model=MODEL, input=texts) for texts in requests))
    for answer, texts, vectors in zip(answers, requests, expected, strict=True):
        assert_close([row.embedding for row in answer.data], vectors)
        assert answer.usage.prompt_tokens == sum(truth.num_tokens(text) for text in texts)


async def test_openai_texts_token_ids_and_mistakes_at_once_do_not_meet(async_client: AsyncOpenAI, truth: Truth) -> None:
    encoding = tiktoken.get_encoding("cl100k_base")
    text = SAMPLES["plain"]
    expected = truth.vector(text)
    answers = await asyncio.gather(
        async_client.embeddings.create(model=MODEL, input=text),
        async_client.embeddings.create(model=MODEL, input=""),
        async_client.embeddings.create(model=MODEL, input=encoding.encode_ordinary(text)),
        async_client.embeddings.create(model="unknown", input=text),
        async_client.embeddings.create(model=MODEL, input=text, dimensions=384, encoding_format="float"),
        return_exceptions=True,
    )
    good = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert [isinstance(answer, BaseException) for answer in answers] == [False, True, False, True, False]
    for answer in good:
        assert_close(answer.data[0].embedding, expected)


async def test_openai_beyond_a_keys_requests_at_once_waits_its_turn_and_loses_none(gateway: Gateway) -> None:
    """With two at once and 64 that come together: a 429 for each of the others would end for many in spite of the SDK's retries."""
    _, key = gateway.create_key("two at once", "--concurrency", "2")
    async with AsyncOpenAI(base_url=gateway.base_url, api_key=key) as client:
        answers = await asyncio.gather(*(client.embeddings.create(model=MODEL, input=f"text {n}") for n in range(64)))
    assert [len(answer.data) for answer in answers] == [1] * 64
