"""Ollama's bodies and replies, each odd one with the line of Ollama's source that decides it (0.33)."""

import json
from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import ClientError, InvalidValue, MissingParameter, TooManyInputs
from gateway.wire import ollama as wire


def body(**fields):
    return json.dumps({"model": "m", **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"input": "a"}, ["a"]),
        ({"input": ["a", "b"]}, ["a", "b"]),
        ({"input": ["", "b"]}, ["", "b"]),  # routes.go, EmbedHandler: only a whole `input` that is empty is left out
        ({"input": ""}, []),
        ({"input": []}, []),
        ({"input": None}, []),
        ({}, []),
    ],
)
def test_the_texts_of_a_body(fields, texts):
    assert wire.decode_embed(body(**fields)).asked.texts == texts


@pytest.mark.parametrize(("truncate", "rule"), [(None, "end"), (True, "end"), (False, "error")])
def test_truncate_is_a_rule_for_long_texts(truncate, rule):
    asked = wire.decode_embed(body(input="a", truncate=truncate)).asked
    assert (asked.long_input, asked.is_default_rule) == (rule, rule == "end")


@pytest.mark.parametrize(("dimensions", "asked"), [(3, 3), (0, None), (-1, None), (None, None)])
def test_dimensions_below_one_are_all_of_them(dimensions, asked):
    assert wire.decode_embed(body(input="a", dimensions=dimensions)).asked.dimensions == asked  # `req.Dimensions > 0 && …`


@pytest.mark.parametrize(("sent", "texts"), [("a", ["a"]), ("", []), (None, [])])
def test_the_old_endpoint_takes_one_prompt_and_gives_raw_vectors(sent, texts):
    asked = wire.decode_prompt(body(prompt=sent)).asked
    assert (asked.texts, asked.normalize) == (texts, False)


@pytest.mark.parametrize("keep_alive", ["5m", "-1s", "1h30m", "0", "1.5h", ".5s", "500µs", 0, -1, 300, 1.5, None])
def test_a_duration_of_go_is_taken(keep_alive):
    assert wire.decode_embed(body(input="a", keep_alive=keep_alive))


@pytest.mark.parametrize("keep_alive", ["5", "", "soon", "5 m", "5d", True, [], {}])  # types.go, Duration.UnmarshalJSON
def test_no_duration_of_go_is_refused(keep_alive):
    with pytest.raises(ClientError, match="keep_alive"):
        wire.decode_embed(body(input="a", keep_alive=keep_alive))


@pytest.mark.parametrize(
    ("options", "num_ctx"),
    [
        (None, None),
        ({}, None),
        ({"num_ctx": 2048}, 2048),
        ({"num_ctx": 10.0}, 10),
        ({"num_ctx": 0}, None),
        ({"num_ctx": None}, None),
    ],
)
def test_of_the_options_only_the_context_counts(options, num_ctx):
    options = options and {**options, "temperature": 0, "mirostat": "odd", "stop": ["a"]}
    assert wire.decode_embed(body(input="a", options=options)).num_ctx == num_ctx


@pytest.mark.parametrize(
    "sent",
    [
        b"[]",
        b'"m"',
        b"{",
        b'{"model": 5}',
        b'{"model": "m", "truncate": "yes"}',
        b'{"model": "m", "truncate": 1}',
        b'{"model": "m", "dimensions": "3"}',
        b'{"model": "m", "dimensions": 3.5}',
        b'{"model": "m", "options": []}',
        b'{"model": "m", "options": {"num_ctx": "8"}}',
        b'{"model": "m", "input": 5}',
        b'{"model": "m", "input": ["a", 5]}',
        b'{"model": "m", "input": [["a"]]}',
        b'{"model": "m", "input": {"a": "b"}}',
        b'{"model": "m", "input": [null]}',
        b'{"model": "m", "input": true}',
    ],
)
def test_what_go_cannot_read_is_a_400(sent):
    with pytest.raises(ClientError) as caught:
        wire.decode_embed(sent)
    assert caught.value.status == 400


def test_a_missing_model_is_found_before_a_wrong_input_and_a_wrong_field_before_both():
    """As in EmbedHandler: ShouldBindJSON, the model's name, then the type of `input`."""
    with pytest.raises(MissingParameter):
        wire.decode_embed(b'{"input": 5}')
    with pytest.raises(ClientError, match="truncate"):
        wire.decode_embed(b'{"input": 5, "truncate": 5}')
    with pytest.raises(ClientError, match=r"^invalid input type$"):
        wire.decode_embed(b'{"input": 5, "model": "m"}')


@pytest.mark.parametrize("sent", [b"", b" \n", b"\xef\xbb\xbf"])
def test_no_body_at_all_has_words_of_its_own(sent):
    with pytest.raises(MissingParameter) as caught:
        wire.decode_embed(sent)
    assert caught.value.param == "body"


def test_null_is_a_body_without_fields():
    with pytest.raises(MissingParameter):
        wire.decode_embed(b"null")
    assert wire.decode_embed(b"null", default_model="d").asked.model == "d"


def test_as_many_texts_as_langchain_sends_at_once():
    assert len(wire.decode_embed(body(input=["a"] * wire.MAX_INPUTS)).asked.texts) == 8192
    for text in ("a", "a" * 20):  # also where the body is counted before it is parsed
        with pytest.raises(TooManyInputs):
            wire.decode_embed(body(input=[text] * (wire.MAX_INPUTS + 1)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
fields = st.sampled_from(["model", "input", "prompt", "truncate", "dimensions", "options", "keep_alive", "name"])


@given(st.binary() | st.dictionaries(fields, json_values).map(lambda each: json.dumps(each).encode()))
@example(b'{"model": "m", "options": {"num_ctx": 1e400}}')
@example(b'{"model": "m", "dimensions": ' + b"9" * 400 + b"}")
@example(b"[" * 100_000)
@example(b'{"model": "\\ud800"}')
def test_any_bytes_give_a_request_or_a_client_error(raw):
    for decode in (wire.decode_embed, wire.decode_prompt, wire.decode_show):
        with suppress(ClientError):
            decode(raw)


ROWS = np.array([[0.1, -0.2], [1 / 3, 3e-9]], np.float32)


def test_vectors_are_written_as_go_writes_float32():
    content = wire.encode_embed(ROWS, model="m:latest", num_tokens=7, total_seconds=0.25, load_seconds=0.125)
    assert content == (
        b'{"model":"m:latest","embeddings":[[0.1,-0.2],[0.33333334,3e-9]],"total_duration":250000000,"load_duration":125000000,'
        b'"prompt_eval_count":7}'
    )
    msgspec.json.decode(content, type=wire.OllamaEmbedReply)


def test_the_old_endpoint_writes_float64():
    assert wire.encode_prompt(ROWS[0]) == b'{"embedding":[0.10000000149011612,-0.20000000298023224]}'


def test_a_loaded_model_has_no_vectors():
    assert wire.encode_loaded("m") == b'{"model":"m","embeddings":[]}'
    assert wire.EMPTY_VECTOR == b'{"embedding":[]}'


@pytest.mark.parametrize(("num_ctx", "counts"), [(None, [900]), (256, [900]), (100, [100, 3]), (2048, [900])])
def test_a_context_that_cuts_nothing_is_taken(num_ctx, counts):
    wire.refuse_small_context(num_ctx, 256, counts)


@pytest.mark.parametrize(("num_ctx", "counts"), [(255, [900]), (99, [3, 100])])
def test_a_context_that_would_cut_elsewhere_is_refused(num_ctx, counts):
    with pytest.raises(InvalidValue, match="num_ctx"):
        wire.refuse_small_context(num_ctx, 256, counts)
