"""TEI's bodies: every form of `inputs`, and any bytes at all."""

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import (
    ClientError,
    EmptyInput,
    InputTooLong,
    InvalidType,
    InvalidValue,
    MissingParameter,
    RequestTooLong,
    TooManyInputs,
)
from gateway.wire import tei, tei_predict, tei_rerank, tei_tokenize, tokenize

DECODERS = [
    tei.decode_embed, tei.decode_similarity, tei.decode_any, tei.decode_vertex, tei_predict.decode_predict,
    tei_tokenize.decode_tokenize, tei_tokenize.decode_ids, tokenize.decode,
]  # fmt: skip
leaves = st.none() | st.booleans() | st.integers(-2, 2**33) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2))
NAMES = ["inputs", "input", "ids", "instances", "parameters", "truncate", "dimensions", "source_sentence", "sentences", "content"]
bodies = st.recursive(
    values, lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=4) | st.lists(inner, max_size=2), max_leaves=8
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=40), bodies.map(lambda body: json.dumps(body).encode())), st.sampled_from(DECODERS))
def test_any_bytes_give_a_request_or_a_client_error(raw, decode):
    with suppress(ClientError):
        decode(raw, path_model="m", default_model=None)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"inputs":' * 50_000, b'{"instances":[' + b"[" * 90_000, b'"\xff"'])
def test_what_is_nested_without_end_is_refused(decode, raw):
    with pytest.raises(ClientError):
        decode(raw, path_model="m")


def asked(**body):
    return tei.decode_embed(json.dumps(body).encode(), default_model="m").asked


@pytest.mark.parametrize(
    ("inputs", "texts", "ids"),
    [
        ("a", ["a"], None), (["a"], ["a"], None), (["a", "b"], ["a", "b"], None), ([1, 2], [""], [[1, 2]]), ([1], [""], [[1]]),
        ([[1], [2, 3]], ["", ""], [[1], [2, 3]]), (["a", [1]], ["a", ""], [None, [1]]), (" ", [" "], None),
    ],
)  # fmt: skip
def test_every_form_of_inputs(inputs, texts, ids):
    found = asked(inputs=inputs)
    assert (found.texts, found.token_ids) == (texts, ids)


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ("", EmptyInput), ([], EmptyInput), ([[]], EmptyInput), (["a", ""], EmptyInput), ([[1], []], EmptyInput),
        (["a", 1], InvalidType), ([1, "a"], InvalidType), ([1, [2]], InvalidType), ([-1], InvalidType), ([2**32], InvalidType),
        ([1.5], InvalidType), ([True], InvalidType), ([["a"]], InvalidType), ([[[1]]], InvalidType), ({}, InvalidType),
        (None, InvalidType), (["a"] * 2049, TooManyInputs), (list(range(1, 40_000)), InputTooLong),
    ],
)  # fmt: skip
def test_every_other_form_is_refused(inputs, error):
    with pytest.raises(error):
        asked(inputs=inputs)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("normalize", None, InvalidType), ("normalize", "true", InvalidType), ("truncate", "END", InvalidType),
        ("dimensions", 0, InvalidValue), ("dimensions", -1, InvalidType), ("dimensions", "8", InvalidType),
        ("truncation_direction", "up", InvalidType), ("truncation_direction", None, InvalidType), ("prompt_name", 5, InvalidType),
    ],
)  # fmt: skip
def test_an_option_of_another_kind_is_refused(field, value, error):
    with pytest.raises(error):
        asked(inputs="a", **{field: value})


@pytest.mark.parametrize("field", ["truncate", "dimensions", "prompt_name"])
def test_what_may_be_null_may_be_left_out(field):
    assert asked(inputs="a", **{field: None}) == asked(inputs="a")


def test_without_a_model_it_is_said_how_to_name_one():
    for decode, raw in (
        (tei.decode_embed, b'{"inputs":"a"}'), (tei_predict.decode_predict, b'{"inputs":"a"}'),
        (tei_tokenize.decode_tokenize, b'{"inputs":"a"}'), (tei_tokenize.decode_ids, b'{"ids":[1]}'),
        (tei_rerank.decode, b'{"query":"a","texts":["b"]}'),
    ):  # fmt: skip
        with pytest.raises(InvalidValue, match=r"/tei/\{model\}/"):
            decode(raw)
    with pytest.raises(MissingParameter):
        tei.decode_embed(b"{}", default_model="m")


@pytest.mark.parametrize(
    ("decode", "body", "words"),
    [
        (tei.decode_similarity, {"inputs": "a"}, "expected an object of `source_sentence` and `sentences`, but got a string"),
        (tei.decode_similarity, {"inputs": {"source_sentence": "a", "sentences": "b"}}, "an array of strings, but got a string"),
        (tei.decode_similarity, {"inputs": {"source_sentence": 5, "sentences": ["b"]}}, "expected a string, but got an integer"),
        (tei.decode_similarity, {"inputs": {"source_sentence": "a"}}, "Missing required parameter: 'inputs.sentences'"),
        (tei.decode_similarity, {"inputs": {}}, "Missing required parameter: 'inputs.source_sentence'"),
        (
            tei.decode_similarity,
            {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"truncate": 5}},
            "'parameters.truncate': expected a boolean, but got an integer",
        ),
        (tei.decode_vertex, {"instances": {}}, "'instances': expected an array of objects, but got an object"),
        (tei.decode_vertex, {"instances": [{"inputs": 5}]}, "'instances[0].inputs': expected a string, an array of strings"),
        (tei.decode_vertex, {"instances": [{"inputs": "a", "truncate": 5}]}, "'instances[0].truncate': expected a boolean"),
    ],
)  # fmt: skip
def test_a_field_inside_another_is_refused_in_its_own_words(decode, body, words):
    with pytest.raises(ClientError) as refused:
        decode(json.dumps(body).encode(), default_model="m")
    assert words in refused.value.message


@pytest.mark.parametrize(
    "body",
    [
        *({"inputs": inputs} for inputs in ([], [[]], ["a", "b", "c"], [["a", "b", "c"]], [["a"], "b"], ["a", ["b"]], [5], None)),
        *({"inputs": "a", **option} for option in ({"truncate": 5}, {"truncation_direction": "up"}, {"raw_scores": None})),
    ],
)
def test_a_body_that_no_classifier_reads_is_refused_as_such(body):
    with pytest.raises(InvalidType):
        tei_predict.decode_predict(json.dumps(body).encode(), default_model="m")


@pytest.mark.parametrize(
    ("inputs", "num_inputs"), [("a", 1), ("", 1), (["a"], 1), (["a", "b"], 1), ([["a"]], 1), ([["a", "b"], ["c"]], 2)]
)
def test_what_a_classifier_reads_passes(inputs, num_inputs):
    body = {"inputs": inputs, "truncate": None, "raw_scores": True}
    assert tei_predict.decode_predict(json.dumps(body).encode(), default_model="m").num_inputs == num_inputs


def test_more_pairs_than_2048_are_too_many():
    with pytest.raises(TooManyInputs):
        tei_predict.decode_predict(json.dumps({"inputs": [["a"]] * 2049}).encode(), default_model="m")


@pytest.mark.parametrize(
    ("instances", "error"),
    [
        ([{"inputs": [[1]] * 1025}] * 2, TooManyInputs), ([{"inputs": ["a"] * 2048}, {"inputs": "a"}], TooManyInputs),
        ([{"inputs": [1] * 8000}] * 38, RequestTooLong), ([{"inputs": [[1] * 8000] * 19}] * 2, RequestTooLong),
        ([{"inputs": [1] * 30_000}], InputTooLong), ([{"inputs": "a"}, 5], InvalidType),
    ],
)  # fmt: skip
def test_instances_are_counted_together(instances, error):
    with pytest.raises(error):
        tei.decode_vertex(json.dumps({"instances": instances}).encode(), default_model="m")


def test_as_many_instances_as_may_come_are_parsed():
    for instances in ([{"inputs": [1] * 8000}] * 37, [{"inputs": ["a"] * 1024}] * 2, [{"inputs": "a"}] * 2048):
        tei.decode_vertex(json.dumps({"instances": instances}).encode(), default_model="m")


def test_a_cosine_is_never_above_1():
    [row] = rows = np.full((1, 8), 0.35355344, dtype=np.float32)  # a little longer than 1
    assert row @ row > 1
    body = {"inputs": {"source_sentence": "a", "sentences": ["a"]}}
    sent = tei.decode_similarity(json.dumps(body).encode(), default_model="m")
    assert json.loads(sent.encode(np.concatenate([rows, rows]))) == [1.0]
    assert json.loads(sent.encode(np.concatenate([rows, -rows]))) == [-1.0]


def test_replies_are_floats_that_parse_to_the_same_float32():
    rows = np.array([[0.1, -1e-30], [1 / 3, 2]], dtype=np.float32)
    assert np.array_equal(np.array(json.loads(tei.encode_embed(rows)), dtype=np.float32), rows)
