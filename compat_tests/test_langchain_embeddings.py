"""langchain-openai: OpenAIEmbeddings with nothing but `base_url` and a key. By default it sends token ids, not text."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import openai
import pytest
import tiktoken
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from compat_tests.process import Gateway
from compat_tests.texts import ALIASES, MODEL, SAMPLES, many, prose
from compat_tests.truth import Truth, Vector, assert_close, shortened

MAX_CHUNK_IDS = 8191  # LangChain cuts longer texts, and averages what it gets
TEXTS = list(SAMPLES.values())

Embeddings = Callable[..., OpenAIEmbeddings]


@pytest.fixture
async def embeddings(gateway: Gateway, key: str) -> AsyncIterator[Embeddings]:
    made: list[OpenAIEmbeddings] = []

    def make(model: str = MODEL, *, api_key: str = key, **options: Any) -> OpenAIEmbeddings:
        made.append(OpenAIEmbeddings(base_url=gateway.base_url, api_key=SecretStr(api_key), model=model, **options))
        return made[-1]

    yield make
    for each in made:  # LangChain has no way to close what it opened, and what stays open is a ResourceWarning
        each.client._client.close()  # noqa: SLF001
        await each.async_client._client.close()  # noqa: SLF001


@pytest.mark.parametrize("model", [MODEL, *ALIASES])
def test_langchain_embeds_a_query(embeddings: Embeddings, truth: Truth, model: str) -> None:
    assert_close(embeddings(model).embed_query(SAMPLES["emoji"]), truth.vector(SAMPLES["emoji"]))


def test_langchain_embeds_documents_in_their_order(embeddings: Embeddings, truth: Truth) -> None:
    assert_close(embeddings().embed_documents(TEXTS), truth.vectors(TEXTS))
    assert_close(embeddings().embed_documents(TEXTS[::-1]), truth.vectors(TEXTS[::-1]))


def test_langchain_embeds_more_documents_than_it_sends_at_once(embeddings: Embeddings, truth: Truth) -> None:
    texts = many(1100)
    assert_close(embeddings().embed_documents(texts), truth.vectors(texts))


async def test_langchain_embeds_asynchronously(embeddings: Embeddings, truth: Truth) -> None:
    assert_close(await embeddings().aembed_documents(TEXTS), truth.vectors(TEXTS))
    assert_close(await embeddings().aembed_query(TEXTS[0]), truth.vector(TEXTS[0]))


async def test_langchain_sends_text_when_told_to(embeddings: Embeddings, truth: Truth) -> None:
    as_text = embeddings(check_embedding_ctx_length=False)
    assert_close(as_text.embed_documents(TEXTS), truth.vectors(TEXTS))
    assert_close(await as_text.aembed_documents(TEXTS), truth.vectors(TEXTS))


def test_langchain_cuts_a_long_document_itself(embeddings: Embeddings, truth: Truth) -> None:
    document = "長い文書 " + prose(11_000)
    encoding = tiktoken.get_encoding("cl100k_base")
    ids = encoding.encode_ordinary(document)
    chunks = [ids[start : start + MAX_CHUNK_IDS] for start in range(0, len(ids), MAX_CHUNK_IDS)]
    assert len(document) > 50_000
    assert len(chunks) > 1
    rows = truth.vectors([encoding.decode(chunk) for chunk in chunks])
    assert_close(embeddings().embed_query(document), mean(rows, [len(chunk) for chunk in chunks]))


def test_langchain_fills_an_input_to_the_brim(embeddings: Embeddings, truth: Truth) -> None:
    encoding = tiktoken.get_encoding("cl100k_base")
    document = encoding.decode(encoding.encode_ordinary(SAMPLES["accents"] * 600)[:MAX_CHUNK_IDS])
    vector = embeddings().embed_query(document)
    assert_close(vector, truth.vector(document))


def mean(rows: np.ndarray[Any, Any], weights: list[int]) -> Vector:
    average = np.average(rows.astype(np.float64), axis=0, weights=weights)
    return np.asarray(average / np.linalg.norm(average), dtype=np.float32)


@pytest.mark.parametrize("texts", [[""], ["a", "", "b"]], ids=["alone", "among others"])
def test_langchain_is_refused_an_empty_text(embeddings: Embeddings, texts: list[str]) -> None:
    """It has no ids to send for it, and asks for the vector of "" instead; OpenAI refuses that too."""
    with pytest.raises(openai.BadRequestError, match="input cannot be an empty string"):
        embeddings().embed_documents(texts)


def test_langchain_may_ask_for_fewer_dimensions(embeddings: Embeddings, truth: Truth) -> None:
    assert_close(embeddings(dimensions=128).embed_documents(TEXTS), shortened(truth.vectors(TEXTS), 128))


def test_langchain_raises_what_openai_raises(embeddings: Embeddings) -> None:
    with pytest.raises(openai.NotFoundError, match="The model `text-embedding-ada-002` does not exist"):
        embeddings("text-embedding-ada-002").embed_query("a")
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided"):
        embeddings(api_key="sk-not-a-key-of-this-gateway").embed_query("a")
