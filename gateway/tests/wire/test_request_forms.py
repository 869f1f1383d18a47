"""What a client may send, and the one shape it becomes."""

import json
from typing import get_args

import pytest

from gateway.config import OutputDtype
from gateway.errors import EmptyInput, InvalidType, InvalidValue
from gateway.wire.request import EmbeddingsRequest, decode

HELLO_WORLD = [15339, 1917]

FORMS = [
    ("hello world", ["hello world"], False),
    (["hello world"], ["hello world"], True),
    (["hello world", "\n", "日本語 🦜"], ["hello world", "\n", "日本語 🦜"], True),
    (HELLO_WORLD, ["hello world"], False),
    ([HELLO_WORLD], ["hello world"], True),
    ([HELLO_WORLD, [15339], [100257]], ["hello world", "hello", "<|endoftext|>"], True),
]

OPTIONAL = {
    "encoding_format": ("base64", "float"),
    "dimensions": (8, None),
    "normalize": (False, True),
    "long_input": ("end", None),
    "input_type": ("query", None),
}


def decoded(**fields: object) -> EmbeddingsRequest:
    return decode(json.dumps({"input": "a", "model": "m", **fields}).encode())


@pytest.mark.parametrize(("sent", "texts", "is_array"), FORMS)
def test_all_forms_of_input_become_one_list_of_texts(sent, texts, is_array):
    request = decoded(input=sent)
    assert (request.texts, request.is_array, request.model) == (texts, is_array, "m")


def test_a_text_escaped_in_the_body_is_the_text_itself():
    raw = rb'{"model":"m","input":"a\u00e9\ud83e\udd9c\n\u0000"}'
    assert decode(raw).texts == ["aé🦜\n\0"]


LONE_SURROGATES = [
    (rb"\ud800", "\N{REPLACEMENT CHARACTER}"),
    (rb"a\uDFFFb", "a\N{REPLACEMENT CHARACTER}b"),
    (rb"\ud83d\ud83e\udd9c", "\N{REPLACEMENT CHARACTER}\N{PARROT}"),
    (rb"\udd9c\ud83e", "\N{REPLACEMENT CHARACTER}" * 2),
    (rb"\ud83e\n", "\N{REPLACEMENT CHARACTER}\n"),
    (rb"\\ud83e\ud83e", "\\ud83e\N{REPLACEMENT CHARACTER}"),
    (rb"\\\ud83e\ud83e\udd9c", "\\\N{REPLACEMENT CHARACTER}\N{PARROT}"),
]


@pytest.mark.parametrize(("escaped", "text"), LONE_SURROGATES)
def test_half_a_surrogate_pair_is_read_as_a_replacement_character(escaped, text):
    assert decode(b'{"input":["fine","' + escaped + b'"],"model":"m"}').texts == ["fine", text]
    large = b'{"input":["' + escaped + b'","' + b"x" * 70_000 + b'"],"model":"\\udfff","x":{"y":"\\udfff"}}'
    assert decode(large).texts[0] == text
    assert decode(large).model == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(("field", "value", "default"), [(name, *values) for name, values in OPTIONAL.items()])
def test_null_equals_absent_for_every_optional_field(field, value, default):
    assert getattr(decoded(**{field: value}), field) == value
    assert getattr(decoded(**{field: None}), field) == default
    assert decoded(**{field: None}) == decoded()


def test_all_optional_fields_may_be_null_at_once():
    assert decoded(**dict.fromkeys([*OPTIONAL, "user"])) == decoded()


def test_the_user_is_accepted():
    assert decoded(user="somebody") == decoded()


@pytest.mark.parametrize(
    "unknown",
    [
        {"stream": True},
        {"keep_alive": "5m"},
        {"options": {"deep": [1, 2.5, None, {"x": []}]}},
        {"Input": 5, "INPUT": [], "input ": None},
        {"": 1e308, "🦜": -0.0},
    ],
)
def test_unknown_fields_are_ignored(unknown):
    assert decoded(**unknown) == decoded()


@pytest.mark.parametrize("field", ["long_input", "input_type", "encoding_format"])
def test_every_choice_of_a_field_is_kept(field):
    choices = {
        "long_input": ["chunk", "end", "error"],
        "input_type": ["query", "document"],
        "encoding_format": ["float", "base64"],
    }[field]
    assert [getattr(decoded(**{field: choice}), field) for choice in choices] == choices


def test_every_type_of_numbers_is_kept():
    assert [decoded(output_dtype=dtype).output_dtypes for dtype in get_args(OutputDtype)] == [
        (dtype,) for dtype in get_args(OutputDtype)
    ]
    assert decoded(output_dtype=None).output_dtypes == decoded().output_dtypes == ("float",)


@pytest.mark.parametrize("dimensions", [1, 384, 2**31])
def test_dimensions_of_one_and_more_are_kept(dimensions):
    assert decoded(dimensions=dimensions).dimensions == dimensions


def test_2048_inputs_of_either_kind_are_accepted():
    assert len(decoded(input=["x"] * 2048).texts) == 2048
    assert len(decoded(input=[[15339]] * 2048).texts) == 2048


def test_one_array_of_8191_ids_is_one_input():
    request = decoded(input=[15339] * 8191)
    assert request.texts == ["hello" * 8191]
    assert not request.is_array


@pytest.mark.parametrize(
    ("sent", "named", "model"),
    [
        ({"model": "m"}, {"default_model": "d"}, "m"),
        ({}, {"default_model": "d"}, "d"),
        ({"model": None}, {"default_model": "d"}, "d"),
        ({"model": ""}, {"default_model": "d"}, "d"),
        ({"model": "m"}, {"path_model": "p"}, "p"),
        ({}, {"path_model": "p", "default_model": "d"}, "p"),
    ],
)
def test_the_paths_model_goes_before_the_bodys_and_that_before_the_default(sent, named, model):
    assert decode(json.dumps({"input": "a", **sent}).encode(), **named).model == model


def test_a_model_of_a_wrong_type_is_refused_though_another_would_serve():
    with pytest.raises(InvalidType):
        decode(b'{"input":"a","model":5}', path_model="p", default_model="d")


def test_an_integer_may_be_written_with_a_point():
    body = b'{"model": "m", "input": [[15339.0, 1917], [15339]], "dimensions": 8.0, "unknown": 1.5}'
    request = decode(body)
    assert request.texts == ["hello world", "hello"]
    assert request.dimensions == 8


def test_beside_such_an_integer_no_other_field_is_read():
    request = decode(b'{"model": "m", "input": [15339.0, 1917], "unknown": 1e400}')
    assert request.texts == ["hello world"]


def test_jina_s_objects_with_a_text_are_texts():
    request = decode(b'{"model": "m", "input": [{"text": "a"}, {"text": "b"}]}')
    assert (request.texts, request.is_array, request.has_ids) == (["a", "b"], True, False)


@pytest.mark.parametrize(
    ("sent", "error", "words"),
    [
        (
            b'[{"text": "a"}, {"image": "https://x/y.png"}]',
            InvalidValue,
            "an object has 'text' alone, since this server embeds text",
        ),
        (b'[{"text": "a", "image": "x"}]', InvalidValue, "an object has 'text' alone"),
        (b'[{"text": "a"}, {}]', InvalidType, "Invalid type for 'input[1]'"),
        (b'[{"text": null}]', InvalidType, "Invalid type for 'input[0].text'"),
        (b'[{"text": ""}]', EmptyInput, "Invalid 'input[0]': input cannot be an empty string."),
        (b'["a", {"text": "b"}]', InvalidType, "not a mixture of them"),
        (b'{"text": "a"}', InvalidType, "Invalid type for 'input'"),
    ],
)
def test_other_objects_are_refused_by_name(sent, error, words):
    with pytest.raises(error) as caught:
        decode(b'{"model": "m", "input": %b}' % sent)
    assert caught.value.param == "input"
    assert words in caught.value.message
