"""curl: requests that are JSON, and wrong."""

import json
from typing import Any

import pytest

from compat_tests.curl import Curl, assert_error
from compat_tests.texts import MODEL

EMPTY = "input cannot be an empty string"
TOO_LONG = "context_length_exceeded"
HUGE = 10**30

# What is sent beside or instead of {"model": ..., "input": "a"}; a field's value ABSENT leaves it out.
ABSENT = object()
REFUSED: dict[str, tuple[dict[str, Any], str, str, str]] = {
    # name: (sent, param, code, words of the message)
    "no input": ({"input": ABSENT}, "input", "missing_required_parameter", "input"),
    "no model": ({"model": ABSENT}, "model", "missing_required_parameter", "model"),
    "nothing at all": ({"model": ABSENT, "input": ABSENT}, "input", "missing_required_parameter", "input"),
    "null input": ({"input": None}, "input", "missing_required_parameter", "input"),
    "null model": ({"model": None}, "model", "missing_required_parameter", "model"),
    "a number for input": ({"input": 5}, "input", "invalid_type", "string"),
    "an object for input": ({"input": {"text": "a"}}, "input", "invalid_type", "string"),
    "true for input": ({"input": True}, "input", "invalid_type", "string"),
    "a null input among others": ({"input": ["a", None]}, "input", "invalid_type", "input"),
    "an object among inputs": ({"input": ["a", {}]}, "input", "invalid_type", "input"),
    "a number for model": ({"model": 5}, "model", "invalid_type", "a string"),
    "a list for model": ({"model": [MODEL]}, "model", "invalid_type", "a string"),
    "a number for encoding_format": ({"encoding_format": 5}, "encoding_format", "invalid_type", "a string"),
    "another encoding_format": ({"encoding_format": "hex"}, "encoding_format", "invalid_value", "values: 'float', 'base64'."),
    "encoding_format in capitals": ({"encoding_format": "FLOAT"}, "encoding_format", "invalid_value", "'float', 'base64'"),
    "a text for dimensions": ({"dimensions": "128"}, "dimensions", "invalid_type", "an integer"),
    "a fraction for dimensions": ({"dimensions": 12.5}, "dimensions", "invalid_type", "an integer"),
    "true for dimensions": ({"dimensions": True}, "dimensions", "invalid_type", "an integer"),
    "too many dimensions": ({"dimensions": 385}, "dimensions", "invalid_value", "Must be less than or equal to 384"),
    "dimensions up to 2**63": ({"dimensions": 2**63 - 1}, "dimensions", "invalid_value", "Must be less than or equal to"),
    "no dimensions": ({"dimensions": 0}, "dimensions", "invalid_value", "1"),
    "a number for user": ({"user": 5}, "user", "invalid_type", "a string"),
    "a text for normalize": ({"normalize": "yes"}, "normalize", "invalid_type", "a boolean"),
    "a number for long_input": ({"long_input": 5}, "long_input", "invalid_type", "a string"),
    "a list for input_type": ({"input_type": []}, "input_type", "invalid_type", "a string"),
    "an empty text": ({"input": ""}, "input", "invalid_value", EMPTY),
    "an empty text among others": ({"input": ["a", "", "b"]}, "input", "invalid_value", EMPTY),
    "only empty texts": ({"input": [""]}, "input", "invalid_value", EMPTY),
    "an empty array": ({"input": []}, "input", "invalid_value", "input"),
    "an empty array of ids": ({"input": [[]]}, "input", "invalid_value", "input[0]"),
    "an empty array of ids among others": ({"input": [[1], []]}, "input", "invalid_value", "input[1]"),
    "texts and ids": ({"input": ["a", 1]}, "input", "invalid_type", "input"),
    "ids and texts": ({"input": [1, "a"]}, "input", "invalid_type", "input"),
    "texts and arrays": ({"input": ["a", [1]]}, "input", "invalid_type", "input"),
    "ids and arrays": ({"input": [1, [1]]}, "input", "invalid_type", "input"),
    "arrays of texts": ({"input": [["a"]]}, "input", "invalid_type", "input"),
    "arrays in arrays in arrays": ({"input": [[[1]]]}, "input", "invalid_type", "input"),
    "a boolean for an id": ({"input": [True]}, "input", "invalid_type", "input"),
    "a boolean among ids": ({"input": [1, False, 2]}, "input", "invalid_type", "input"),
    "a boolean among arrays of ids": ({"input": [[1, True]]}, "input", "invalid_type", "input"),
    "a fraction for an id": ({"input": [1.5]}, "input", "invalid_type", "input"),
    "an id below 0": ({"input": [5, -1]}, "input", "invalid_value", "input"),
    "the id between the ranks and the special ones": ({"input": [[5], [100256]]}, "input", "invalid_value", "input[1]"),
    "an id among the special ones": ({"input": [100261]}, "input", "invalid_value", "input"),
    "an id above all": ({"input": [100277]}, "input", "invalid_value", "input"),
    "an id of 63 bits": ({"input": [[2**63 - 1]]}, "input", "invalid_value", "input[0]"),
    "2049 texts": ({"input": ["a"] * 2049}, "input", "array_above_max_length", "array length must be 2048 or less"),
    "2049 arrays": ({"input": [[1]] * 2049}, "input", "array_above_max_length", "array length must be 2048 or less"),
    "8193 ids": ({"input": [1] * 8193}, "input", TOO_LONG, "Invalid 'input': maximum input length is 8192 tokens."),
    "8193 ids among others": ({"input": [[1], [1] * 8193]}, "input", TOO_LONG, "input[1]': maximum input length is 8192 tokens."),
    "a text of too many tokens": ({"input": "a " * 16_383}, "input", TOO_LONG, "maximum input length is 16384 tokens."),
    "too many characters": ({"input": ["a", "a" * 10_000_000]}, "input", TOO_LONG, "input[1]': maximum input length is 16384"),
    "a long text, refused": ({"input": "a " * 300, "long_input": "error"}, "input", TOO_LONG, "maximum input length is 256"),
}  # fmt: skip


def request(changes: dict[str, Any]) -> dict[str, Any]:
    body = {"model": MODEL, "input": "a", **changes}
    return {name: value for name, value in body.items() if value is not ABSENT}


@pytest.mark.parametrize(("changes", "param", "code", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_curl_is_told_what_is_wrong(curl: Curl, changes: dict[str, Any], param: str, code: str, words: str) -> None:
    assert_error(curl.post(request(changes)), 400, code, words, param=param)


@pytest.mark.parametrize(
    "changes", [{"input": [HUGE]}, {"input": [[-HUGE]]}, {"dimensions": HUGE}], ids=["id", "negative", "dimensions"]
)
def test_curl_integers_of_any_size_are_a_client_s_mistake(curl: Curl, changes: dict[str, Any]) -> None:
    param = next(iter(changes))
    answer = curl.post(request(changes))
    code = answer.json()["error"]["code"]
    assert code in {"invalid_type", "invalid_value"}
    assert_error(answer, 400, code, param, param=param)


def test_curl_more_than_300000_ids_are_refused_together(curl: Curl) -> None:
    answer = curl.post(request({"input": [[1] * 8192] * 37}))
    code = error_type = "max_tokens_per_request"
    assert_error(answer, 400, code, "Requested 303104 tokens, max 300000 tokens per request", error_type=error_type)


def test_curl_more_than_600000_tokens_of_text_are_refused_together(curl: Curl) -> None:
    answer = curl.post(request({"input": ["a " * 15_000] * 41}))
    code = error_type = "max_tokens_per_request"
    assert_error(answer, 400, code, "tokens, max 600000 tokens per request", error_type=error_type)


def test_curl_gives_every_special_token_that_there_is(curl: Curl) -> None:
    assert curl.post(request({"input": [0, 100255, 100257, 100258, 100259, 100260, 100276]})).status == 200


def test_curl_of_a_field_sent_twice_one_counts(curl: Curl) -> None:
    """JSON leaves open which; what matters is that no mistake becomes the server's."""
    answer = curl.post(b'{"model": "all-MiniLM-L6-v2", "input": "", "input": "a"}')
    assert answer.status in {200, 400}
    assert set(json.loads(answer.body)) in ({"error"}, {"object", "data", "model", "usage"})
