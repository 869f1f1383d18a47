"""Cohere's bodies: any bytes are a request or a client's error, and every field is honoured or refused by name."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import ClientError, MissingParameter, TooManyInputs
from gateway.wire.cohere import EXPECTED, CohereEmbedRequest, decode

BODY = {"model": "m", "texts": ["a", "b"], "input_type": "search_document"}
TEXT = [{"content": [{"type": "text", "text": "a"}]}]
FIELDS = [*EXPECTED, "images"]

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["text", "END", "float"])
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["content", "type", "text", *FIELDS]) | st.text(max_size=3), inner, max_size=3)
    ),
)
bodies = st.fixed_dictionaries({}, optional=dict.fromkeys([*FIELDS, "unknown"], values))


def parsed(body, version="2"):
    return decode(json.dumps(body).encode(), version=version)


def refused(body, version="2"):
    with pytest.raises(ClientError) as caught:
        parsed(body, version)
    return caught.value


def outcome_of(raw, version) -> CohereEmbedRequest | ClientError:
    try:
        return decode(raw, version=version)
    except ClientError as error:
        return error


def hold(raw, version):
    asked = outcome_of(raw, version)
    if isinstance(asked, ClientError):
        assert asked.status == 400
        assert asked.message
        assert len(asked.message.encode()) < 1000
    else:
        assert asked.request.model
        assert asked.request.texts
        assert all(asked.request.texts)
        "".join(asked.request.texts).encode()


@given(raw=st.binary(max_size=200), version=st.sampled_from("12"))
@example(raw=json.dumps(BODY).encode(), version="2")
def test_any_bytes_are_a_request_or_a_400(raw, version):
    hold(raw, version)


@given(raw=st.binary(max_size=30), place=st.integers(0, 80), version=st.sampled_from("12"))
def test_any_bytes_inside_a_good_body_are_a_request_or_a_400(raw, place, version):
    good = json.dumps(BODY).encode()
    hold(good[:place] + raw + good[place:], version)


@given(body=bodies | bodies.map(lambda body: {**BODY, **body}), version=st.sampled_from("12"))
@example(body={**BODY, "texts": None, "inputs": TEXT}, version="2")
@example(body={**BODY, "output_dimension": float("inf")}, version="2")
def test_any_json_is_a_request_or_a_400(body, version):
    hold(json.dumps(body).encode(), version)


@pytest.mark.parametrize("name", FIELDS)
def test_null_equals_absent(name):
    sent = {**BODY, name: None}
    absent = {key: value for key, value in BODY.items() if key != name}
    if name in {"texts", "model", "input_type"}:
        assert refused(sent).message == refused(absent).message == f"Missing required parameter: '{name}'."
    else:
        assert parsed(sent) == parsed(BODY)


def test_the_first_version_needs_no_input_type_and_gives_no_types():
    asked = parsed({"model": "m", "texts": ["a"]}, version="1")
    assert (asked.request.input_type, asked.types) == (None, None)
    assert parsed({"model": "m", "texts": ["a"], "embedding_types": ["float"]}, version="1").types == ("float",)
    assert isinstance(refused({"model": "m", "texts": ["a"]}), MissingParameter)


def test_types_are_each_given_once_and_float_by_default():
    assert parsed({**BODY, "embedding_types": ["int8", "base64"]}).request.output_dtypes == ("int8", "float")
    assert parsed(BODY).types == parsed({**BODY, "embedding_types": []}).types == ("float",)
    assert parsed({**BODY, "embedding_types": ["base64", "float", "base64"]}).types == ("base64", "float")


@pytest.mark.parametrize(("sent", "rule", "is_default"), [(None, "end", True), ("END", "end", False), ("NONE", "error", False)])
def test_long_texts_are_cut_at_their_end_unless_the_client_wants_none_cut(sent, rule, is_default):
    request = parsed({**BODY, "truncate": sent}).request
    assert (request.long_input, request.is_default_rule) == (rule, is_default)


@pytest.mark.parametrize(("sent", "is_background"), [(None, False), (0, False), (1, True), (999, True)])
def test_requests_of_a_lower_priority_are_background_work(sent, is_background):
    assert parsed({**BODY, "priority": sent}).request.is_background is is_background


def test_inputs_of_parts_are_texts():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = parsed({**BODY, "texts": None, "inputs": [*TEXT, {"content": parts, "other": 1}]})
    assert asked.request.texts == ["a", "a\nb"]
    assert asked.request.sent_as["input"] == "inputs"


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": []}, "Invalid 'texts': the array must not be empty."),
        ({"texts": ["a", ""]}, "Invalid 'texts[1]': a text cannot be an empty string."),
        ({"texts": "a"}, "Invalid type for 'texts': expected an array of strings, but got a string instead."),
        ({"texts": ["a", 1]}, "Invalid type for 'texts[1]': expected an array of strings, but got an integer instead."),
        ({"texts": [["a"]]}, "Invalid type for 'texts[0]': expected an array of strings, but got an array instead."),
        ({"model": ""}, "Missing required parameter: 'model'."),
        ({"model": 1}, "Invalid type for 'model': expected a string, but got an integer instead."),
        ({"input_type": 1}, "Invalid type for 'input_type': expected a string, but got an integer instead."),
        ({"input_type": "image"}, "Invalid value for 'input_type': this server embeds text alone."),
        ({"images": ["data:image/png;base64,AA=="]}, "Invalid value for 'images': this server embeds text alone."),
        ({"inputs": TEXT}, "Invalid value for 'inputs': 'texts' is there too; send one of them."),
        ({"texts": [], "inputs": TEXT}, "Invalid value for 'inputs': 'texts' is there too; send one of them."),
        ({"texts": None, "inputs": []}, "Invalid 'inputs': the array must not be empty."),
        ({"texts": None, "inputs": {}}, "Invalid type for 'inputs': expected an array."),
        (
            {"texts": None, "inputs": ["a"]},
            "Invalid type for 'inputs[0]': expected an object whose 'content' is an array",
        ),
        ({"texts": None, "inputs": [{}]}, "Invalid type for 'inputs[0].content': expected an array."),
        ({"texts": None, "inputs": [{"content": []}]}, "Invalid 'inputs[0]': a text cannot be an empty string."),
        (
            {"texts": None, "inputs": [*TEXT, {"content": [{"type": "text", "text": "a"}, IMAGE]}]},
            "Invalid value for 'inputs[1].content[1].type': this server embeds text alone.",
        ),
        ({"texts": None, "inputs": [{"content": [{"type": "text"}]}]}, "Missing required parameter: 'inputs[0].content[0].text'."),
        (
            {"embedding_types": ["float16"]},
            "Invalid value for 'embedding_types'. Supported values:",
        ),
        (
            {"embedding_types": "float"},
            "Invalid type for 'embedding_types': expected an array of strings, but got a",
        ),
        ({"truncate": "START"}, "Invalid value for 'truncate': supported are 'END' and 'NONE'"),
        ({"truncate": True}, "Invalid type for 'truncate': expected a string, but got a boolean instead."),
        ({"output_dimension": 0}, "Invalid value for 'output_dimension': expected an integer from 1"),
        ({"output_dimension": 1.5}, "Invalid value for 'output_dimension': expected an integer from 1"),
        (
            {"output_dimension": True},
            "Invalid type for 'output_dimension': expected a positive integer, but got a",
        ),
        ({"max_tokens": -1}, "Invalid value for 'max_tokens': expected an integer from 1"),
        ({"dimensions": 8}, "Invalid value for 'dimensions': Cohere's word is 'output_dimension'."),
        ({"output_dtype": "int8"}, "Invalid value for 'output_dtype': Cohere's word is 'embedding_types'."),
        ({"embedding_type": "float"}, "Invalid value for 'embedding_type': Cohere's word is 'embedding_types'."),
        ({"encoding_format": "base64"}, "Invalid value for 'encoding_format': Cohere's word is 'embedding_types'."),
        ({"normalize": False}, "Invalid value for 'normalize': vectors have length 1 here"),
        ({"normalized": 1}, "Invalid value for 'normalized': vectors have length 1 here"),
        ({"long_input": "chunk"}, "Invalid value for 'long_input': Cohere's word is 'truncate'."),
        ({"prompt_name": "query"}, "Invalid value for 'prompt_name': Cohere's word is 'input_type'."),
        ({"task": "retrieval.query"}, "Invalid value for 'task': Cohere's word is 'input_type'."),
        ({"instruction": "x"}, "Invalid value for 'instruction': /v1/embeddings takes one."),
        ({"priority": -1}, "Invalid value for 'priority': expected an integer of 0 or more."),
    ],
)
@pytest.mark.parametrize("version", ["1", "2"])
def test_odd_values_are_refused_by_name(change, message, version):
    assert refused({**BODY, **change}, version).message.startswith(message)


@pytest.mark.parametrize("number", [2049, 9000, 60_000])
@pytest.mark.parametrize("field", ["texts", "inputs"])
def test_more_texts_than_any_request_may_have_are_counted_before_they_are_objects(field, number):
    error = refused({**BODY, "texts": None, field: ["abc"] * number if field == "texts" else TEXT * number})
    assert isinstance(error, TooManyInputs)
    assert f"Invalid '{field}': array length must be 2048 or less." in error.message


def test_other_servers_fields_pass_if_they_ask_for_what_the_reply_has():
    same = {"normalize": True, "normalized": True, "encoding_format": "float", "dimensions": None, "instruction": None}
    assert parsed({**BODY, **same}) == parsed(BODY)


def test_whole_numbers_may_be_written_with_a_point_and_unknown_fields_are_ignored():
    assert parsed({**BODY, "output_dimension": 3.0, "unknown": [{}]}).request.dimensions == 3
