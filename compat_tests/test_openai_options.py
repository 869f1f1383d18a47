"""openai-python: everything besides `input` and `model` that a request may say."""

import base64
import struct
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI

from compat_tests.texts import ALIASES, DIMENSIONS, LONG, MODEL, SAMPLES
from compat_tests.truth import Truth, assert_close, shortened

TEXTS = list(SAMPLES.values())
OPTIONAL = ("encoding_format", "dimensions", "user", "normalize", "long_input", "input_type")


@pytest.mark.parametrize("text", TEXTS, ids=SAMPLES.keys())
def test_openai_floats_and_base64_are_the_same_bits(client: OpenAI, text: str) -> None:
    by_default = client.embeddings.create(model=MODEL, input=text)
    as_floats = client.embeddings.create(model=MODEL, input=text, encoding_format="float")
    assert as_base64(client, text) == by_default.data[0].embedding == [float32(x) for x in as_floats.data[0].embedding]


def as_base64(client: OpenAI, text: str) -> list[float]:
    """What the client makes of base64 when nobody names a format; asked for by name it hands on the string itself."""
    sent: Any = client.embeddings.create(model=MODEL, input=text, encoding_format="base64").data[0].embedding
    return list(struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(sent, validate=True)))


def float32(number: float) -> float:
    unpacked: float = struct.unpack("<f", struct.pack("<f", number))[0]
    return unpacked


@pytest.mark.parametrize("dimensions", [1, 2, 128, 383, 384])
def test_openai_dimensions_are_the_first_ones_at_length_one(client: OpenAI, truth: Truth, dimensions: int) -> None:
    answer = client.embeddings.create(model=MODEL, input=TEXTS, dimensions=dimensions)
    assert_close([row.embedding for row in answer.data], shortened(truth.vectors(TEXTS), dimensions))


def test_openai_is_refused_more_dimensions_than_there_are(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="Must be less than or equal to 384") as caught:
        client.embeddings.create(model=MODEL, input="a", dimensions=385)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "dimensions")


@pytest.mark.parametrize("dimensions", [0, -1])
def test_openai_is_refused_less_than_one_dimension(client: OpenAI, dimensions: int) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.embeddings.create(model=MODEL, input="a", dimensions=dimensions)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "dimensions")


def test_openai_may_name_a_user(client: OpenAI, truth: Truth) -> None:
    answer = client.embeddings.create(model=MODEL, input="a", user="user-1234")
    assert_close(answer.data[0].embedding, truth.vector("a"))


def test_openai_none_is_as_good_as_absent(client: OpenAI, truth: Truth) -> None:
    nothing: Any = None
    answer = client.embeddings.create(model=MODEL, input="a", dimensions=nothing, user=nothing, encoding_format=nothing)
    assert_close(answer.data[0].embedding, truth.vector("a"))


@pytest.mark.parametrize("name", OPTIONAL)
def test_openai_null_is_as_good_as_absent(client: OpenAI, truth: Truth, name: str) -> None:
    answer = client.embeddings.create(model=MODEL, input="a", extra_body={name: None})
    assert_close(answer.data[0].embedding, truth.vector("a"))


def test_openai_unknown_fields_are_passed_over(client: OpenAI, truth: Truth) -> None:
    unknown = {"truncate": "END", "task": "retrieval.query", "modality": ["text"], "nested": {"a": [None, {}]}}
    answer = client.embeddings.create(model=MODEL, input="a", extra_body=unknown)
    assert_close(answer.data[0].embedding, truth.vector("a"))


@pytest.mark.parametrize("name", ALIASES)
async def test_openai_gets_the_name_back_that_it_used(async_client: AsyncOpenAI, truth: Truth, name: str) -> None:
    answer = await async_client.embeddings.create(model=name, input=TEXTS)
    assert answer.model == name
    assert_close([row.embedding for row in answer.data], truth.vectors(TEXTS))


@pytest.mark.parametrize("normalize", [True, False])
def test_openai_normalize_false_leaves_what_the_model_gives(client: OpenAI, truth: Truth, normalize: bool) -> None:
    texts = ["a", LONG]  # this model's own modules end in a normalisation
    answer = client.embeddings.create(model=MODEL, input=texts, extra_body={"normalize": normalize})
    assert_close([row.embedding for row in answer.data], truth.vectors(texts))


def test_openai_normalize_false_leaves_shortened_vectors_short(client: OpenAI, truth: Truth) -> None:
    answer = client.embeddings.create(model=MODEL, input="a", dimensions=64, extra_body={"normalize": False})
    assert_close(answer.data[0].embedding, truth.vector("a")[:64])


@pytest.mark.parametrize("input_type", ["query", "document"])
def test_openai_input_type_changes_nothing_without_prompts(client: OpenAI, truth: Truth, input_type: str) -> None:
    answer = client.embeddings.create(model=MODEL, input="a", extra_body={"input_type": input_type})
    assert_close(answer.data[0].embedding, truth.vector("a"))


@pytest.mark.parametrize(
    ("name", "supported"),
    [
        ("encoding_format", "Supported values: 'float', 'base64'."),
        ("long_input", "Supported values: 'chunk', 'end', 'error'."),
        ("input_type", "only 'query' and 'document' (which add nothing) pass"),
    ],
)
def test_openai_is_told_which_values_there_are(client: OpenAI, name: str, supported: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.embeddings.create(model=MODEL, input="a", extra_body={name: "hex"})
    assert supported in caught.value.message
    assert (caught.value.code, caught.value.param) == ("invalid_value", name)
