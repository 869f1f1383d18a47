"""cohere-python, v1 and v2, with nothing but its base URL changed: vectors, types, truncation, prompts, errors."""

import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any

import cohere
import numpy as np
import pytest
from cohere.core.api_error import ApiError
from cohere.errors import BadRequestError, NotFoundError, UnauthorizedError

from compat_tests.process import Gateway
from compat_tests.texts import DIMENSIONS, LONG, MODEL, SAMPLES, many
from compat_tests.truth import Truth, Vectors, assert_close, shortened

TEXTS = list(SAMPLES.values())


@pytest.fixture(scope="module")
def client(gateway: Gateway, key: str) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(api_key=key, base_url=gateway.origin) as client:
        yield client


@pytest.fixture(scope="module")
def first(gateway: Gateway, key: str) -> Iterator[cohere.Client]:
    """The client of v1. A base URL that ends in /v1, as for OpenAI's clients, works too."""
    with cohere.Client(api_key=key, base_url=gateway.base_url) as client:
        yield client


@pytest.fixture
async def later(gateway: Gateway, key: str) -> AsyncIterator[cohere.AsyncClientV2]:
    async with cohere.AsyncClientV2(api_key=key, base_url=gateway.base_url) as client:
        yield client


def vectors(truth: Truth) -> Vectors:
    """Those of TEXTS, one of which is long: Cohere's API cuts such texts by default."""
    return truth.vectors(TEXTS, long_input="end")


def embed(client: Any, texts: list[str], **options: Any) -> Any:
    return client.embed(**{"model": MODEL, "texts": texts, "input_type": "search_document", **options})


def test_cohere_v2_gives_floats_by_default(client: cohere.ClientV2, truth: Truth) -> None:
    answer = embed(client, TEXTS)
    assert_close(answer.embeddings.float_, vectors(truth))
    assert answer.texts == TEXTS
    assert answer.id.startswith("req_")
    assert answer.response_type == "embeddings_by_type"
    assert answer.meta.billed_units.input_tokens == truth.num_tokens(*TEXTS)
    assert answer.meta.api_version.version == "2"


def test_cohere_v2_gives_several_types_at_once(client: cohere.ClientV2) -> None:
    answer = embed(client, TEXTS, embedding_types=["base64", "float", "int8", "binary", "ubinary"]).embeddings
    floats = np.array(answer.float_, dtype=np.float32)
    rows = [np.frombuffer(base64.b64decode(text, validate=True), "<f4") for text in answer.base64]
    assert np.array_equal(rows, floats)
    assert np.array_equal(answer.ubinary, np.packbits(floats > 0, axis=-1))
    assert np.array_equal(np.array(answer.binary) + 128, answer.ubinary)
    assert np.array(answer.int8).shape == floats.shape
    correlation = np.corrcoef(np.ravel(answer.int8), np.ravel(floats))[0, 1]
    assert correlation > 0.9
    assert answer.uint8 is None


async def test_cohere_async_v2_gives_the_same(later: cohere.AsyncClientV2, truth: Truth) -> None:
    answer = await later.embed(model=MODEL, texts=TEXTS, input_type="search_query", embedding_types=["float"])
    assert_close(answer.embeddings.float_, vectors(truth))


def test_cohere_v2_takes_inputs_of_parts(client: cohere.ClientV2, truth: Truth) -> None:
    inputs: Any = [{"content": [{"type": "text", "text": text}]} for text in TEXTS]
    answer = client.embed(model=MODEL, inputs=inputs, input_type="search_document")
    assert_close(answer.embeddings.float_, vectors(truth))


def test_cohere_v1_gives_plain_floats_in_batches_of_its_own(first: cohere.Client, truth: Truth) -> None:
    texts = many(100)  # the client sends 96 a request, and joins the replies
    answer: Any = first.embed(model=MODEL, texts=texts)
    assert answer.response_type == "embeddings_floats"
    assert_close(answer.embeddings, truth.vectors(texts))
    assert answer.meta.billed_units.input_tokens == truth.num_tokens(*texts)


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")  # by the client, to join replies by type
def test_cohere_v1_gives_types_and_streams(first: cohere.Client, truth: Truth) -> None:
    answer: Any = embed(first, TEXTS, embedding_types=["float"])
    assert answer.response_type == "embeddings_by_type"
    assert_close(answer.embeddings.float_, vectors(truth))
    rows = list(first.embed_stream(model=MODEL, texts=TEXTS, input_type="clustering", batch_size=3))
    assert_close([row.embedding for row in rows], vectors(truth))


async def test_cohere_async_v1_gives_the_same(gateway: Gateway, key: str, truth: Truth) -> None:
    async with cohere.AsyncClient(api_key=key, base_url=gateway.origin) as client:
        answer: Any = await client.embed(model=MODEL, texts=TEXTS, input_type="classification")
    assert_close(answer.embeddings, vectors(truth))


def test_cohere_dimensions_are_the_first_ones(client: cohere.ClientV2, truth: Truth) -> None:
    answer = embed(client, TEXTS, output_dimension=64)
    assert_close(answer.embeddings.float_, shortened(vectors(truth), 64))
    with pytest.raises(BadRequestError, match=f"less than or equal to {DIMENSIONS}"):
        embed(client, ["a"], output_dimension=385)


@pytest.mark.parametrize("options", [{}, {"truncate": "END"}, {"max_tokens": 512}], ids=["default", "END", "max_tokens"])
def test_cohere_long_texts_are_cut_and_the_reply_says_so(client: cohere.ClientV2, truth: Truth, options: dict[str, Any]) -> None:
    raw = client.with_raw_response.embed(model=MODEL, texts=[LONG, "a"], input_type="search_document", **options)
    assert_close(raw.data.embeddings.float_, truth.vectors([LONG, "a"], long_input="end"))
    assert raw.headers["x-gateway-long-inputs"] == "shortened=1"
    assert raw.data.meta is not None
    assert raw.data.meta.warnings
    assert "cut at their end" in raw.data.meta.warnings[0]


@pytest.mark.parametrize("input_type", ["search_query", "search_document", "classification", "clustering"])
def test_cohere_s_purposes_add_nothing_for_a_model_without_prompts(client: cohere.ClientV2, truth: Truth, input_type: str) -> None:
    raw = client.with_raw_response.embed(model=MODEL, texts=["a"], input_type=input_type)
    assert_close(raw.data.embeddings.float_, truth.vectors(["a"]))
    assert raw.headers["x-gateway-prompt"] == "none"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"texts": [""]}, "Invalid 'texts[0]': a text cannot be an empty string."),
        ({"texts": []}, "Invalid 'texts': the array must not be empty."),
        ({"texts": ["a"] * 2049}, "Invalid 'texts': array length must be 2048 or less."),
        ({"texts": [LONG], "truncate": "NONE"}, "Invalid 'texts[0]': maximum input length is 256 tokens."),
        ({"truncate": "START"}, "Invalid value for 'truncate'"),
        ({"input_type": "image"}, "this server embeds text alone"),
        ({"input_type": "poem"}, "Invalid value for 'input_type': this model has no prompt 'poem'"),
        ({"embedding_types": ["float16"]}, "Invalid value for 'embedding_types'"),
        ({"images": ["data:image/png;base64,AA=="]}, "Invalid value for 'images': this server embeds text alone."),
        ({"max_tokens": 12}, "Invalid value for 'max_tokens'"),
    ],
)
def test_cohere_refusals_are_bad_requests_that_name_the_field(client: cohere.ClientV2, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        embed(client, **{"texts": ["a"], **options})
    assert words in caught.value.body["message"]
    assert set(caught.value.body) == {"message"}


def test_cohere_tokens_are_the_models_own_and_come_back_as_text(first: cohere.Client, truth: Truth) -> None:
    found = first.tokenize(text="a copper lantern", model=MODEL, offline=False)
    assert found.token_strings == ["a", "copper", "lantern"]
    assert len(found.tokens) + 2 == truth.num_tokens("a copper lantern")  # without [CLS] and [SEP]
    assert first.detokenize(tokens=found.tokens, model=MODEL, offline=False).text == "a copper lantern"


def test_cohere_errors_have_their_classes(gateway: Gateway, client: cohere.ClientV2) -> None:
    with pytest.raises(NotFoundError, match="The model `nobody` does not exist"):
        embed(client, ["a"], model="nobody")
    with cohere.ClientV2(api_key="wrong", base_url=gateway.origin) as stranger:
        with pytest.raises(UnauthorizedError, match="invalid api token"):
            embed(stranger, ["a"])
        with pytest.raises(ApiError) as caught:
            stranger.embed(model=MODEL, texts=["a"], input_type="search_query", request_options={"max_retries": 0})
    assert caught.value.body == {"message": "invalid api token"}
