"""Why a body is no JSON, and at which byte; nothing of it is quoted. Byte order marks are passed over."""

import json

import pytest

from gateway.errors import InvalidJSON
from gateway.wire.request import decode

MARK = b"\xef\xbb\xbf"
GOOD = b'{"input":"a","model":"m"}'

WRONG = {
    "a comma too many": (b'{"input":"a",}', "trailing comma in object, at byte 13"),
    "no comma": (b'{"input":"a" "model":"m"}', "expected ',' or '}', at byte 13"),
    "no colon": (b'{"input" "a"}', "expected ':', at byte 9"),
    "single quotes": (b"{'input':'a'}", "strings stand in double quotes, at byte 1"),
    "a form": (b"input=a&model=m", "invalid character, at byte 0"),
    "a line end in a text": (b'{"input":"a\nb"}', "invalid character, at byte 11"),
    "another escape": (rb'{"input":"\x41"}', "invalid escape character in string, at byte 11"),
    "a broken escape": (rb'{"input":"\u12G4"}', "invalid character in unicode escape, at byte 14"),
    "NaN": (b'{"input":NaN}', "NaN and Infinity are no JSON, at byte 9"),
    "-Infinity": (b'{"input":-Infinity}', "NaN and Infinity are no JSON, at byte 10"),
    "a word": (b'{"input":nope}', "invalid character, at byte 10"),
    "a word cut short": (b'{"input":tru}', "invalid character, at byte 12"),
    "Python's words": (b'{"input":None}', "invalid character, at byte 9"),
    "a second document": (GOOD + b"\n{}", "trailing characters, at byte 26"),
    "one brace too many": (GOOD + b"}", "trailing characters, at byte 25"),
    "no end": (GOOD[:-1], "it is cut short: it ends at byte 24"),
    "nothing": (b"", "it is empty"),
    "white space": (b" \n", "it is empty"),
    "broken UTF-8": (b'{"input":"\xff"}', "it is not UTF-8, at byte 10"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "it is UTF-16: send it as UTF-8"),
    "UTF-16 without a mark": (GOOD.decode().encode("utf-16-be"), "it is UTF-16: send it as UTF-8"),
    "UTF-32": (GOOD.decode().encode("utf-32"), "it is UTF-32: send it as UTF-8"),
    "depth": (b'{"input":"a","model":"m","x":' + b"[" * 90_000, "it is nested too deeply"),
    "a large one": (b'{"input":["' + b"a" * 100_000 + b'",]}', "trailing comma in array, at byte 100013"),
}


@pytest.mark.parametrize(("raw", "reason"), WRONG.values(), ids=WRONG)
def test_it_is_told_why_and_at_which_byte(raw, reason):
    assert refusal(raw) == f"We could not parse the JSON body of your request. ({reason})"


def refusal(raw):
    with pytest.raises(InvalidJSON) as caught:
        decode(raw)
    return caught.value.message


def test_a_byte_order_mark_is_passed_over_and_counted():
    assert decode(MARK + GOOD).texts == ["a"]
    assert refusal(MARK + b'{"input":"a",}').endswith("at byte 16)")
    assert refusal(MARK).endswith("(it is empty)")


@pytest.mark.parametrize("place", range(len(GOOD)))
def test_no_text_is_quoted_and_the_byte_is_the_one_that_json_names(place):
    """Against Python's parser, which is another: it names the first byte it could not read, or the value that begins there."""
    raw = GOOD[:place] + b"\x01" + GOOD[place:]
    message = refusal(raw)
    with pytest.raises(json.JSONDecodeError) as theirs:
        json.loads(raw)
    assert message.endswith(f"at byte {theirs.value.pos})")
    assert "\x01" not in message
