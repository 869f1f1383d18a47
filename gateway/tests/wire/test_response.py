"""The bytes of a response: exact, the same to float32 in both formats, and written as short as they can be."""

import base64
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.wire.response import encode

finite_rows = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def replied(rows: np.ndarray, encoding_format: str, *, model: str = "m") -> dict:
    return json.loads(encode(rows, model=model, encoding_format=encoding_format, num_tokens=1))


def embeddings(rows: np.ndarray, encoding_format: str) -> list:
    return [entry["embedding"] for entry in replied(rows, encoding_format)["data"]]


def digits(number: str) -> str:
    return number.lower().partition("e")[0].replace("-", "").replace(".", "").strip("0")


def test_a_response_of_floats_is_these_bytes():
    rows = np.array([[1, -0.5, 0.009219426], [0, 1e-7, -3.5]], dtype=np.float32)
    assert encode(rows, model="m", encoding_format="float", num_tokens=8) == (
        b'{"object":"list","data":['
        b'{"object":"embedding","index":0,"embedding":[1.0,-0.5,0.009219426]},'
        b'{"object":"embedding","index":1,"embedding":[0.0,1e-7,-3.5]}],'
        b'"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}'
    )


def test_a_response_in_base64_is_these_bytes():
    rows = np.array([[1, -0.5]], dtype=np.float32)
    assert encode(rows, model="m", encoding_format="base64", num_tokens=3) == (
        b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAL8="}],'
        b'"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}'
    )


@given(rows=finite_rows)
@example(rows=np.array([[-0.0, 1e-45, 3.4028235e38, 1.1754944e-38, 16777216.0, 0.1]], dtype=np.float32))
def test_floats_read_back_are_the_same_float32_bit_for_bit(rows):
    assert np.array(embeddings(rows, "float"), dtype=np.float32).tobytes() == rows.tobytes()


@given(number=st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(number=float(np.float32(0.009219426)))
def test_a_float_is_the_shortest_text_that_is_still_that_float32(number):
    raw = encode(np.array([[number]], dtype=np.float32), model="m", encoding_format="float", num_tokens=1)
    text = raw.partition(b'"embedding":[')[2].partition(b"]")[0].decode()
    assert len(digits(text)) == len(digits(np.format_float_scientific(np.float32(number), unique=True)))


@given(rows=finite_rows)
def test_base64_is_the_little_endian_float32_bytes(rows):
    for text, row in zip(embeddings(rows, "base64"), rows, strict=True):
        assert base64.b64decode(text, validate=True) == row.astype("<f4").tobytes()


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
@pytest.mark.parametrize("view", [np.s_[:, :3], np.s_[::2], np.s_[:, ::-1]], ids=["a cut", "every second", "backwards"])
def test_rows_that_are_not_contiguous_are_written_right(encoding_format, view):
    rows = np.arange(24, dtype=np.float32).reshape(4, 6)[view]
    assert not rows.flags.c_contiguous
    assert embeddings(rows, encoding_format) == embeddings(rows.copy(order="C"), encoding_format)
    assert np.array_equal(embeddings(rows, "float"), rows)


@pytest.mark.parametrize("dtype", [">f4", "<f8"])
def test_rows_of_another_type_are_written_as_float32(dtype):
    rows = np.array([[0.1, 2.5]], dtype=dtype)
    assert embeddings(rows, "float") == [[0.1, 2.5]]
    assert embeddings(rows, "base64") == [base64.b64encode(rows.astype("<f4").tobytes()).decode()]


@pytest.mark.parametrize("dtype", ["<f2", np.int8, np.uint8])
def test_small_numbers_are_written_as_they_are(dtype):
    rows = np.array([[0, 1, 127], [3, 2, 5]], dtype=dtype)[:, ::-1]
    assert embeddings(rows, "float") == rows.tolist()
    assert [base64.b64decode(text) for text in embeddings(rows, "base64")] == [row.tobytes() for row in rows]


def test_integers_have_no_decimal_point():
    assert b'"embedding":[-128,0,127]' in encode(
        np.array([[-128, 0, 127]], np.int8), model="m", encoding_format="float", num_tokens=1
    )


@pytest.mark.parametrize("model", ['a "quoted" name', "back\\slash/slash", "モデル 🦜", "line\nbreak"])
def test_a_models_name_is_escaped(model):
    assert replied(np.ones((1, 1), dtype=np.float32), "float", model=model)["model"] == model


def test_indexes_follow_the_order_of_the_rows():
    reply = replied(np.arange(300, dtype=np.float32).reshape(300, 1), "float")
    assert [entry["index"] for entry in reply["data"]] == list(range(300))
    assert [entry["embedding"] for entry in reply["data"]] == [[float(number)] for number in range(300)]
