"""A reply is an array that can be trusted, or is refused; nothing in between."""

import base64
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream import ollama, openai, tei
from gateway.upstream.validation import InvalidResponse, NotANumber, array

ROW = [0.5, -0.25, 1.0]
B64 = base64.b64encode(np.array(ROW, dtype="<f4").tobytes()).decode()


def read(reply, num_texts=1, dimensions=None):
    content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    return array(openai.read(content, {}), num_texts, dimensions)


def data(*embeddings, indices=None):
    numbers = range(len(embeddings)) if indices is None else indices
    return {"data": [{"embedding": each, "index": index} for index, each in zip(numbers, embeddings, strict=True)]}


def test_bytes_and_numbers_are_the_same():
    np.testing.assert_array_equal(read(data(B64)), [ROW])
    np.testing.assert_array_equal(read(data(ROW)), [ROW])
    np.testing.assert_array_equal(read(data(B64, ROW), 2), [ROW, ROW])


@given(st.permutations(range(6)))
def test_vectors_stand_where_their_numbers_say(order):
    rows = [[float(place), 1.0] for place in order]
    np.testing.assert_array_equal(read(data(*rows, indices=order), 6)[:, 0], range(6))


def test_without_numbers_the_order_of_the_reply_counts():
    reply = {"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]}
    np.testing.assert_array_equal(read(reply, 2), [[1.0], [2.0]])


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (data(ROW), "it gave 1 vectors for 2 texts"),
        (data(ROW, ROW, ROW), "it gave 3 vectors for 2 texts"),
        ({"data": []}, "it gave 0 vectors for 2 texts"),
        (data(ROW, ROW, indices=[0, 0]), "numbered wrongly"),
        (data(ROW, ROW, indices=[1, 2]), "numbered wrongly"),
        (data(ROW, ROW, indices=[-1, 0]), "numbered wrongly"),
        (data(ROW, ROW, indices=[0, None]), "numbered wrongly"),
        (data(ROW, [1.0]), "different dimensions"),
        (data([1.0], [1.0]), "1 dimensions and not 3"),
        (data([], []), "an empty vector"),
        (data("", ""), "an empty vector"),
        (data(B64[:4] + "AAA=", B64), "a whole number of float32"),
        (data("no base64!", B64), "not what this protocol says"),
        (data(B64[:-1], B64), "not what this protocol says"),
        (data({"a": 1}, ROW), "not what this protocol says"),
        (data([["deep"]], ROW), "not what this protocol says"),
        ({"data": {"0": ROW}}, "not what this protocol says"),
        ({"error": {"message": "no"}}, "not what this protocol says"),
        ([], "not what this protocol says"),
        (b"<html>", "not what this protocol says"),
        (b"", "not what this protocol says"),
        (b'{"data": [{"embedding": [0.5', "not what this protocol says"),
        (b"[" * 100_000, "not what this protocol says"),
        (b'{"data": NaN, ' + b"[" * 100_000, "not what this protocol says"),
        (b"\xff\xfe", "not what this protocol says"),
    ],
)
def test_nonsense_is_refused_with_a_reason(reply, reason):
    with pytest.raises(InvalidResponse, match=reason):
        read(reply, 2, 3)


def floats(*values):
    return base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()


@pytest.mark.parametrize(
    "bad",
    [
        floats(1, math.nan, 0),
        floats(math.inf, 0, 0),
        [1.0, None, 0.0],
        [1e300, 0.0, 0.0],  # infinite as float32
        None,
        [math.nan, 0.0, 0.0],  # Python's json writes the word NaN, which is no JSON
        [0.0, -math.inf, 0.0],
    ],
)
def test_what_is_not_a_number_is_named_by_its_place(bad):
    with pytest.raises(NotANumber) as found:
        read(data(ROW, bad, ROW), 3, 3)
    assert found.value.position == 1


@pytest.mark.parametrize("bad", [[0.0, 0.0, 0.0], [-0.0, 0.0, 0.0], floats(0, 0, 0), [1e-20, 0.0, 0.0]])
def test_a_vector_of_zeros_is_none(bad):
    with pytest.raises(NotANumber) as found:
        read(data(ROW, bad, ROW), 3, 3)
    assert (found.value.position, found.value.is_zero) == (1, True)


def test_the_place_is_that_of_the_text_and_not_of_the_reply():
    with pytest.raises(NotANumber) as found:
        read(data(ROW, [math.nan, 0, 0], indices=[1, 0]), 2, 3)
    assert found.value.position == 0


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 7, "total_tokens": 9}, 7),
        ({"total_tokens": 9}, 9),
        ({"prompt_tokens": 0, "total_tokens": 9}, 9),
        ({"prompt_tokens": "7"}, None),
        ({"prompt_tokens": True}, None),
        ({"prompt_tokens": 7.5}, None),
        (None, None),
        ({}, None),
    ],
)
def test_usage_is_a_whole_number_or_none(usage, counted):
    assert openai.read(json.dumps(data(ROW) | {"usage": usage}).encode(), {}).num_tokens == counted


def test_the_counts_of_ollama_and_tei():
    assert ollama.read(b'{"model":"m","embeddings":[[1,2]],"prompt_eval_count":5}', {}).num_tokens == 5
    assert ollama.read(b'{"model":"m","embeddings":[[1,2]]}', {}).num_tokens is None
    assert tei.read(b"[[1,2]]", {"x-compute-tokens": "5"}).num_tokens == 5
    assert tei.read(b"[[1,2]]", {"x-compute-tokens": "\u0665"}).num_tokens is None
    assert tei.read(b"[[1,2]]", {"x-compute-tokens": "9" * 5000}).num_tokens is None
    assert tei.read(b"[[1,2]]", {}).num_tokens is None


def test_an_info_that_is_nested_for_ever_is_nonsense():
    with pytest.raises(InvalidResponse):
        tei.read_info(b'{"x":' + b"[" * 30_000)


def test_a_tei_without_limits_in_its_info_is_taken_at_its_default():
    assert tei.read_info(b"{}").max_inputs is None
    assert tei.read_info(b'{"max_client_batch_size": 0}').max_inputs is None
    with pytest.raises(InvalidResponse):
        tei.read_info(b"<html>")


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


ROWS = st.lists(FLOATS, min_size=3, max_size=3).filter(lambda row: max(map(abs, row)) > 1e-9)


@given(st.lists(ROWS, min_size=1, max_size=5), st.booleans())
def test_what_was_sent_is_what_is_read(rows, as_bytes):
    sent = [floats(*row) for row in rows] if as_bytes else rows
    np.testing.assert_array_equal(read(data(*sent), len(rows), 3), np.array(rows, dtype=np.float32))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data", "embedding", "index", "usage"]), inner),
    max_leaves=12,
)


@given(
    ANYTHING | st.builds(lambda items: {"data": items}, st.lists(ANYTHING, min_size=2, max_size=2)),
    st.sampled_from([openai, ollama, tei]),
)
def test_anything_else_is_refused_and_never_crashes(value, dialect):
    try:
        rows = array(dialect.read(json.dumps(value).encode(), {}), 2, 3)
    except (InvalidResponse, NotANumber):
        return
    assert (rows.shape, rows.dtype) == ((2, 3), np.float32)
    assert np.isfinite(rows).all()


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(content):
    for dialect in (openai, ollama, tei):
        with pytest.raises((InvalidResponse, NotANumber)):
            array(dialect.read(content, {}), 1, 3)


def numbered(*places):
    return {
        "data": [{"embedding": [float(number), 1.0], **({} if place is None else {"index": place})} for number, place in places]
    }


@pytest.mark.parametrize(
    ("items", "order"),
    [
        ([(0, None), (1, 1), (2, 2)], [0, 1, 2]),  # protobuf's JSON leaves out a 0
        ([(1, 1), (0, None)], [0, 1]),
        ([(2, 2), (1, 1), (0, None)], [0, 1, 2]),
        ([(0, None)], [0]),
        ([(0, None), (1, None)], [0, 1]),  # none is numbered
        ([(0, None), (1, None), (2, 2)], None),  # which of two is meant
        ([(0, 0), (1, None)], None),
        ([(0, None), (2, 2)], None),
    ],
)
def test_an_index_that_is_left_out_is_0_where_that_can_only_be(items, order):
    parsed = openai.read(json.dumps(numbered(*items)).encode(), {})
    if order is None:
        with pytest.raises(InvalidResponse):
            array(parsed, len(items), None)
    else:
        assert array(parsed, len(items), None)[:, 0].tolist() == order


@pytest.mark.parametrize("usage", [{}, {"usage": {}}, {"usage": None}, {"usage": {"total_tokens": 0}}])
def test_a_usage_that_is_left_out_or_0_is_none_that_can_be_believed(usage):
    parsed = openai.read(json.dumps({"data": [{"embedding": [1.0, 2.0]}], **usage}).encode(), {})
    assert not parsed.num_tokens


def test_an_embedding_that_is_left_out_names_its_input():
    with pytest.raises(NotANumber) as found:
        array(openai.read(b'{"data": [{"embedding": [1.0]}, {"index": 1}]}', {}), 2, None)
    assert found.value.position == 1
