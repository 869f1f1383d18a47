"""curl: bodies that are no request, and bodies that are too much."""

import json
import re

import pytest

from compat_tests.curl import Curl, assert_error
from compat_tests.texts import MODEL

PARSE = "We could not parse the JSON body of your request."
DEPTH = 100_000
LARGE = 60_000_000

NOT_JSON = {
    "empty": b"",
    "white space": b" \n",
    "a word": b"hello",
    "cut off": b'{"model": "all-MiniLM-L6-v2", "input": "a"',
    "two bodies": b'{"model": "all-MiniLM-L6-v2", "input": "a"}{}',
    "a comma too many": b'{"model": "all-MiniLM-L6-v2", "input": "a",}',
    "single quotes": b"{'model': 'all-MiniLM-L6-v2', 'input': 'a'}",
    "a form": b"model=all-MiniLM-L6-v2&input=a",
    "NaN": b'{"model": "all-MiniLM-L6-v2", "input": NaN}',
    "infinity": b'{"model": "all-MiniLM-L6-v2", "input": "a", "dimensions": Infinity}',
    "a control in a text": b'{"model": "all-MiniLM-L6-v2", "input": "a\x01b"}',
    "broken UTF-8 in a text": b'{"model": "all-MiniLM-L6-v2", "input": "a\xff\xfeb"}',
    "a character cut off": b'{"model": "all-MiniLM-L6-v2", "input": "\xf0\x9f\x8e"}',
    "a surrogate as UTF-8": b'{"model": "all-MiniLM-L6-v2", "input": "\xed\xa0\x80"}',
    "an overlong slash": b'{"model": "all-MiniLM-L6-v2", "input": "\xc0\xaf"}',
    "broken UTF-8 in a name": b'{"model": "all-MiniLM-L6-v2", "input": "a", "\xff": 1}',
    "broken UTF-8 in an unknown field": b'{"model": "all-MiniLM-L6-v2", "input": "a", "x": "\xff"}',
    "UTF-16": json.dumps({"model": MODEL, "input": "a"}).encode("utf-16"),
    "deep unknown field": b'{"model": "all-MiniLM-L6-v2", "input": "a", "x": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "deep objects": b'{"a":' * DEPTH + b"1" + b"}" * DEPTH,
}
DEEP_AND_OF_THE_WRONG_TYPE = {
    "closed": b'{"model": "all-MiniLM-L6-v2", "input": ' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "never closed": b'{"model": "all-MiniLM-L6-v2", "input": ' + b"[" * DEPTH,
    "no object": b"[" * DEPTH,
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_curl_what_is_not_json_is_refused(curl: Curl, body: bytes) -> None:
    assert_error(curl.post(body), 400, "invalid_json", PARSE)


@pytest.mark.parametrize("body", DEEP_AND_OF_THE_WRONG_TYPE.values(), ids=DEEP_AND_OF_THE_WRONG_TYPE.keys())
def test_curl_what_is_deep_and_of_the_wrong_type_may_be_called_either(curl: Curl, body: bytes) -> None:
    answer = curl.post(body)
    error = answer.json()["error"]
    assert error["code"] in {"invalid_json", "invalid_type"}
    assert_error(answer, 400, error["code"], param=error["param"])


@pytest.mark.parametrize("body", [[], [{}], "text", 5, None, True], ids=str)
def test_curl_json_that_is_no_object_is_refused(curl: Curl, body: object) -> None:
    assert_error(curl.post(body), 400, "invalid_type", "JSON object")


@pytest.mark.parametrize("escape", [r"\ud800", r"\udc00", r"a\ud83dz", r"\udc00\ud800", r"\ud83d\ud83d"])
def test_curl_half_a_surrogate_pair_is_read_as_a_replacement_character(curl: Curl, escape: str) -> None:
    """Python's json writes such halves of what a cut page holds: one would fail its whole batch."""
    answer = curl.post(f'{{"model": "{MODEL}", "input": "{escape}"}}'.encode())
    text = re.sub(r"\\u[0-9a-f]{4}", "\N{REPLACEMENT CHARACTER}", escape)
    assert answer.status == 200
    assert answer.json() == curl.post({"model": MODEL, "input": text}).json()


def test_curl_a_whole_surrogate_pair_is_a_character(curl: Curl) -> None:
    escaped = curl.post(rb'{"model": "all-MiniLM-L6-v2", "input": "\ud83c\udf89"}').json()
    assert escaped == curl.post('{"model": "all-MiniLM-L6-v2", "input": "🎉"}'.encode()).json()


def test_curl_a_body_of_60_megabytes_is_refused(curl: Curl) -> None:
    body = b'{"model": "all-MiniLM-L6-v2", "input": "' + b"a" * LARGE + b'"}'
    assert_error(curl.post(body), 413, "request_too_large", "16777216")


def test_curl_a_body_of_60_megabytes_is_refused_without_asking_first(curl: Curl) -> None:
    """Without `Expect: 100-continue` the body is already on its way."""
    assert_error(curl.post(b" " * LARGE, "--header", "Expect:"), 413, "request_too_large", "16777216")


def test_curl_a_body_of_60_megabytes_is_refused_though_it_did_not_say_so(curl: Curl) -> None:
    answer = curl.post(b" " * LARGE, "--header", "Transfer-Encoding: chunked")
    assert_error(answer, 413, "request_too_large", "16777216")


def test_curl_a_large_body_without_a_key_is_not_listened_to(curl: Curl) -> None:
    assert_error(curl.post(b" " * LARGE, headers={}), 401, None, "You didn't provide an API key.")


def test_curl_a_body_just_small_enough_is_read(curl: Curl) -> None:
    body = json.dumps({"model": MODEL, "input": "a"}).encode()
    assert curl.post(body + b" " * (16 * 1024 * 1024 - len(body))).status == 200
    assert curl.post(body + b" " * (16 * 1024 * 1024 - len(body) + 1)).status == 413


@pytest.mark.parametrize("size", [0, 1_000_000], ids=["small", "large"])
def test_curl_who_offers_http_2_is_answered_in_1(curl: Curl, size: int) -> None:
    """As Java's HttpClient does with every request."""
    body = json.dumps({"model": MODEL, "input": "a"}).encode() + b" " * size
    assert curl.post(body, "--http2").status == 200
