"""Every 400 that the decoder gives: its status, type, param, code and words."""

import json

import pytest

from gateway.errors import ClientError
from gateway.wire.request import decode

INVALID_JSON = "We could not parse the JSON body of your request."
FORMS = "expected a string, an array of strings, an array of integers or an array of arrays of integers"
FIELDS = ["input", "model", "encoding_format", "output_dtype", "dimensions", "user", "normalize", "long_input", "input_type"]
DEEP = b"[" * 100_000 + b"]" * 100_000

UNPARSABLE = {
    "nothing": b"",
    "no JSON": b"hello",
    "cut short": b'{"input":"a","model":"m"',
    "two documents": b'{"input":"a","model":"m"}{}',
    "single quotes": b"{'input':'a','model':'m'}",
    "a form": b"input=a&model=m",
    "UTF-16": '{"input":"a","model":"m"}'.encode("utf-16"),
    "NaN": b'{"input":NaN,"model":"m"}',
    "Infinity in an ignored field": b'{"input":"a","model":"m","x":-Infinity}',
    "a control character": b'{"input":"a\nb","model":"m"}',
    "a lone surrogate in no JSON": rb'{"input":"\ud800","model":"m"',
    "broken UTF-8": b'{"input":"\xff","model":"m"}',
    "an encoded surrogate": b'{"input":"\xed\xa0\x80","model":"m"}',
    "broken UTF-8 in an ignored field": b'{"input":"a","model":"m","x":"\xc3"}',
    "broken UTF-8 deep in an ignored field": b'{"input":"a","model":"m","x":[{"y":["\xf0\x9f"]}]}',
    "broken UTF-8 in an ignored key": b'{"input":"a","model":"m","\xfe":1}',
    "deep ignored field": b'{"model":"m","input":"a","x":' + DEEP + b"}",
    "deep objects": b'{"x":' * 100_000 + b"1" + b"}" * 100_000,
}

# What was sent beside {"input": "a", "model": "m"}; then param, code and words of the answer.
WRONG = [
    ({"input": None}, "input", "missing_required_parameter", "Missing required parameter: 'input'."),
    ({"model": None}, "model", "missing_required_parameter", "Missing required parameter: 'model'."),
    ({"model": ""}, "model", "missing_required_parameter", "Missing required parameter: 'model'."),
    ({"input": True}, "input", "invalid_type", f"Invalid type for 'input': {FORMS}, but got a boolean instead."),
    ({"input": 15339}, "input", "invalid_type", f"Invalid type for 'input': {FORMS}, but got an integer instead."),
    ({"input": 1.0}, "input", "invalid_type", f"Invalid type for 'input': {FORMS}, but got an integer instead."),
    ({"input": 1.5}, "input", "invalid_type", f"Invalid type for 'input': {FORMS}, but got a number instead."),
    ({"input": {"text": "a"}}, "input", "invalid_type", f"Invalid type for 'input': {FORMS}, but got an object instead."),
    ({"input": [1.5]}, "input", "invalid_type", f"Invalid type for 'input[0]': {FORMS}, but got a number instead."),
    ({"input": [1, 1.5]}, "input", "invalid_type", f"Invalid type for 'input[1]': {FORMS}, but got a number instead."),
    ({"input": [15339, True]}, "input", "invalid_type", f"Invalid type for 'input[1]': {FORMS}, but got a boolean instead."),
    ({"input": ["a", None]}, "input", "invalid_type", f"Invalid type for 'input[1]': {FORMS}, but got null instead."),
    ({"input": ["a", {}]}, "input", "invalid_type", f"Invalid type for 'input[1]': {FORMS}, but got an object instead."),
    ({"input": [[1, "a"]]}, "input", "invalid_type", f"Invalid type for 'input[0][1]': {FORMS}, but got a string instead."),
    ({"input": [[1], [False]]}, "input", "invalid_type", f"Invalid type for 'input[1][0]': {FORMS}, but got a boolean instead."),
    ({"input": [[[1]]]}, "input", "invalid_type", f"Invalid type for 'input[0][0]': {FORMS}, but got an array instead."),
    ({"input": ["a", 1]}, "input", "invalid_type", f"Invalid type for 'input': {FORMS}, not a mixture of them."),
    ({"input": [1, [1]]}, "input", "invalid_type", f"Invalid type for 'input': {FORMS}, not a mixture of them."),
    ({"input": [[], "a"]}, "input", "invalid_type", f"Invalid type for 'input': {FORMS}, not a mixture of them."),
    ({"model": 5}, "model", "invalid_type", "Invalid type for 'model': expected a string, but got an integer instead."),
    ({"user": 5}, "user", "invalid_type", "Invalid type for 'user': expected a string, but got an integer instead."),
    ({"dimensions": "8"}, "dimensions", "invalid_type", "'dimensions': expected an integer, but got a string instead."),
    ({"dimensions": 8.5}, "dimensions", "invalid_type", "'dimensions': expected an integer, but got a number instead."),
    ({"dimensions": True}, "dimensions", "invalid_type", "'dimensions': expected an integer, but got a boolean instead."),
    ({"normalize": 1}, "normalize", "invalid_type", "'normalize': expected a boolean, but got an integer instead."),
    ({"encoding_format": ["float"]}, "encoding_format", "invalid_type", "expected a string, but got an array instead."),
    ({"long_input": False}, "long_input", "invalid_type", "'long_input': expected a string, but got a boolean instead."),
    ({"input_type": {}}, "input_type", "invalid_type", "'input_type': expected a string, but got an object instead."),
    ({"encoding_format": "hex"}, "encoding_format", "invalid_value", "Supported values: 'float', 'base64'."),
    ({"encoding_format": ""}, "encoding_format", "invalid_value", "Supported values: 'float', 'base64'."),
    ({"output_dtype": 8}, "output_dtype", "invalid_type", "'output_dtype': expected a string, but got an integer instead."),
    (
        {"output_dtype": "int4"},
        "output_dtype",
        "invalid_value",
        "Supported values: 'float', 'float16', 'int8', 'uint8', 'binary', 'ubinary'.",
    ),
    ({"long_input": "Chunk"}, "long_input", "invalid_value", "Supported values: 'chunk', 'end', 'error'."),
    (
        {"input_type": "query", "prompt_name": "passage"},
        "prompt_name",
        "invalid_value",
        "'input_type' says the same",
    ),
    ({"instruction": ""}, "instruction", "invalid_value", "expected 1 to 2048 characters"),
    ({"prompt_name": 1}, "prompt_name", "invalid_type", "expected a string"),
    ({"dimensions": 0}, "dimensions", "invalid_value", "Must be greater than or equal to 1."),
    ({"dimensions": -1}, "dimensions", "invalid_value", "Must be greater than or equal to 1."),
    ({"input": ""}, "input", "invalid_value", "Invalid 'input': input cannot be an empty string."),
    ({"input": ["a", ""]}, "input", "invalid_value", "Invalid 'input[1]': input cannot be an empty string."),
    ({"input": []}, "input", "invalid_value", "Invalid 'input': the array must not be empty."),
    ({"input": [[1], []]}, "input", "invalid_value", "Invalid 'input[1]': an array of token ids must not be empty."),
    ({"input": ["x"] * 2049}, "input", "array_above_max_length", "Invalid 'input': array length must be 2048 or less."),
    ({"input": [[1]] * 2049}, "input", "array_above_max_length", "Invalid 'input': array length must be 2048 or less."),
]


def refusal(raw: bytes) -> ClientError:
    with pytest.raises(ClientError) as caught:
        decode(raw)
    return caught.value


@pytest.mark.parametrize("raw", UNPARSABLE.values(), ids=UNPARSABLE)
def test_a_body_that_is_no_json_in_utf8_is_refused(raw):
    error = refusal(raw)
    assert (error.status, error.type, error.param, error.code) == (400, "invalid_request_error", None, "invalid_json")
    assert error.message.startswith(INVALID_JSON)


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"input"', b"1", b"true"])
def test_a_body_that_is_no_object_is_refused(raw):
    error = refusal(raw)
    assert (error.status, error.param, error.code) == (400, None, "invalid_type")
    assert error.message == "The body of your request must be a JSON object."


@pytest.mark.parametrize(("sent", "param", "code", "words"), WRONG, ids=[str(row[0])[:40] for row in WRONG])
def test_a_wrong_field_is_named_with_what_was_expected(sent, param, code, words):
    error = refusal(json.dumps({"input": "a", "model": "m", **sent}).encode())
    assert (error.status, error.type, error.param, error.code) == (400, "invalid_request_error", param, code)
    assert words in error.message


@pytest.mark.parametrize(("raw", "param"), [(b'{"model":"m"}', "input"), (b'{"input":"a"}', "model"), (b"{}", "input")])
def test_a_missing_field_is_named(raw, param):
    error = refusal(raw)
    assert (error.status, error.param, error.code) == (400, param, "missing_required_parameter")


@pytest.mark.parametrize(
    "field", ["input", "model", "encoding_format", "output_dtype", "dimensions", "user", "normalize", "long_input", "input_type"]
)
def test_a_type_error_names_its_field(field):
    error = refusal(json.dumps({"input": "a", "model": "m", field: {"a": 1}}).encode())
    assert (error.param, error.code) == (field, "invalid_type")
    assert error.message.startswith(f"Invalid type for '{field}': expected ")


@pytest.mark.parametrize(("raw", "param"), [(DEEP, None), (b'{"model":"m","input":' + DEEP + b"}", "input")], ids=["all", "input"])
def test_deep_nesting_where_no_array_belongs_is_a_type_error(raw, param):
    error = refusal(raw)
    assert (error.status, error.param, error.code) == (400, param, "invalid_type")


@pytest.mark.parametrize("digits", ["9" * 30, "9" * 5000, "1e400", "-" + "9" * 30], ids=["30", "5000", "1e400", "negative"])
def test_huge_numbers_among_ids_are_refused_and_not_quoted(digits):
    error = refusal(f'{{"model":"m","input":[{digits}]}}'.encode())
    assert (error.status, error.param) == (400, "input")
    assert digits not in error.message
