"""Fields of other servers' APIs: honoured, passed where they ask for what we give, or refused by name."""

import json
from dataclasses import replace

import pytest

from gateway.errors import InvalidValue
from gateway.tests.wire.test_request_forms import decoded
from gateway.wire.foreign_fields import FIELDS, MAX_VALUE_BYTES
from gateway.wire.request import decode

HONOURED = [
    ({"truncate": True}, {"long_input": "end"}),
    ({"truncate": False}, {"long_input": "error"}),
    ({"truncate": "END"}, {"long_input": "end"}),
    ({"truncate": "NONE"}, {"long_input": "error"}),
    ({"truncation": True}, {"long_input": "end"}),
    ({"truncate_prompt_tokens": -1}, {"long_input": "end", "max_tokens": None}),
    ({"truncate_prompt_tokens": 256}, {"long_input": "end", "max_tokens": 256}),
    ({"output_dimension": 8}, {"dimensions": 8, "sent_as": {"dimensions": "output_dimension"}}),
    ({"output_dimensionality": 8.0}, {"dimensions": 8, "sent_as": {"dimensions": "output_dimensionality"}}),
    ({"task": "retrieval.query"}, {"input_type": "retrieval.query", "sent_as": {"input_type": "task"}}),
    ({"task_type": "RETRIEVAL_DOCUMENT"}, {"input_type": "document", "sent_as": {"input_type": "task_type"}}),
    ({"text_type": "query"}, {"input_type": "query", "sent_as": {"input_type": "text_type"}}),
    ({"normalized": False}, {"normalize": False}),
    ({"use_activation": True}, {"normalize": True}),
    ({"embd_normalize": -1}, {"normalize": False}),
    ({"embedding_type": "base64"}, {"encoding_format": "base64", "output_dtypes": ("float",)}),
    ({"encoding_type": "ubinary"}, {"output_dtypes": ("ubinary",), "sent_as": {"output_dtype": "encoding_type"}}),
    ({"embedding_type": "binary"}, {"output_dtypes": ("binary",), "sent_as": {"output_dtype": "embedding_type"}}),
    ({"embedding_type": "ubinary"}, {"output_dtypes": ("ubinary",), "encoding_format": "float"}),
    ({"embedding_types": ["int8"]}, {"output_dtypes": ("int8",), "sent_as": {"output_dtype": "embedding_types"}}),
    ({"embedding_types": ["uint8", "uint8"]}, {"output_dtypes": ("uint8",)}),
    ({"embedding_types": "base64"}, {"encoding_format": "base64"}),
    ({"embed_dtype": "float16"}, {"output_dtypes": ("float16",)}),
]
SAME = [
    {"embed_dtype": "float32"}, {"endianness": "little"}, {"endianness": "native"}, {"output_dtype": "float"},
    {"output_dtype": None},
    {"embedding_type": "float"}, {"embedding_types": ["float"]}, {"modality": "text"}, {"modality": ["text", "text"]},
    {"truncation_direction": "Right"}, {"truncation_side": "right"}, {"add_special_tokens": True}, {"late_chunking": False},
    {"return_multivector": False}, {"unknown": {"messages": [1]}},
]  # fmt: skip
REFUSED = [
    {"truncate": "START"}, {"truncate": 1}, {"truncate": "yes"}, {"truncate": []}, {"truncate_prompt_tokens": 0},
    {"truncate_prompt_tokens": True}, {"truncate_prompt_tokens": "256"}, {"output_dimension": 0}, {"output_dimension": 1.5},
    {"task": 5}, {"task": ""}, {"task_type": ["RETRIEVAL_QUERY"]}, {"embd_normalize": 0}, {"embd_normalize": True},
    {"embed_dtype": "bfloat16"}, {"embed_dtype": "fp8"}, {"embed_dtype": "int8"}, {"endianness": "big"},
    {"embedding_type": "float16"}, {"embedding_type": ["binary"]}, {"embedding_types": ["float", "int8"]}, {"embedding_types": []},
    {"embedding_types": [["float"]]}, {"embedding_types": [None]}, {"embedding_type": "sparse"}, {"embedding_types": {}},
    {"modality": "image"}, {"modality": ["text", "image"]}, {"messages": []}, {"messages": [{"role": "user", "content": "x"}]},
    {"add_special_tokens": False}, {"late_chunking": True}, {"return_multivector": True}, {"truncation_direction": "left"},
]  # fmt: skip
AT_ODDS = [
    ({"truncate": True, "long_input": "error"}, "truncate"),
    ({"truncate": True, "truncation": False}, "truncation"),
    ({"output_dimension": 8, "dimensions": 9}, "output_dimension"),
    ({"task": "query", "prompt_name": "passage"}, "task"),
    ({"normalized": True, "normalize": False}, "normalized"),
    ({"embedding_type": "base64", "encoding_format": "float"}, "embedding_type"),
    ({"embedding_type": "base64", "output_dtype": "int8"}, "embedding_type"),
    ({"embedding_types": ["float"], "output_dtype": "int8"}, "embedding_types"),
    ({"embed_dtype": "float16", "embedding_types": ["float"]}, "embedding_types"),
    ({"embed_dtype": "float32", "output_dtype": "binary"}, "embed_dtype"),
]


@pytest.mark.parametrize(("sent", "becomes"), HONOURED)
def test_a_field_that_we_have_by_another_name_is_honoured(sent, becomes):
    request = decoded(**sent)
    assert {name: getattr(request, name) for name in becomes} == becomes


@pytest.mark.parametrize("sent", SAME)
def test_a_field_that_asks_for_what_we_give_passes(sent):
    assert replace(decoded(**sent), sent_as={}) == decoded()


@pytest.mark.parametrize("sent", REFUSED)
def test_a_field_that_asks_for_something_else_is_refused_by_name(sent):
    [name] = sent
    with pytest.raises(InvalidValue, match=rf"^Invalid value for '{name}': ") as caught:
        decoded(**sent)
    assert (caught.value.status, caught.value.param) == (400, name)


@pytest.mark.parametrize(("sent", "param"), AT_ODDS)
def test_two_fields_at_odds_are_refused_and_two_that_agree_pass(sent, param):
    with pytest.raises(InvalidValue, match="asks for something else; send one of them") as caught:
        decoded(**sent)
    assert caught.value.param == param
    assert decoded(task="query", prompt_name="query", truncate=True, long_input="end").input_type == "query"


@pytest.mark.parametrize("name", FIELDS)
def test_null_equals_absent_for_every_foreign_field(name):
    assert decoded(**{name: None}) == decoded()


def test_a_very_long_value_is_refused_without_being_read():
    raw = json.dumps({"model": "m", "input": "a", "messages": ["x" * MAX_VALUE_BYTES]}).encode()
    with pytest.raises(InvalidValue, match="'messages'"):
        decode(raw)


def test_foreign_fields_are_read_beside_an_integer_written_as_a_float():
    request = decoded(dimensions=8.0, truncate=True, task="query")
    assert (request.dimensions, request.long_input, request.input_type) == (8, "end", "query")
