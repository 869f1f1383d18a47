"""Prepares a body's bytes for the JSON parser, and explains its errors: by fixed words and a byte index, never by quoting it."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, TypeGuard, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from gateway.errors import ClientError, InvalidJSON, InvalidType, InvalidValue

FIELD_PATH = re.compile(r" - at `\$\.(.+)`$")
SUBSCRIPT = re.compile(r"\[.*?\]")
GOT = re.compile(r"got `(\w+)`")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PLACE = re.compile(r"^(?:JSON is malformed: )?(.*) \(byte (\d+)\)$")
# For these errors msgspec gives the index of the byte after the wrong one; for a word that is not true, false or null too.
READ_PAST = {"trailing characters", "invalid escape character in string", "invalid character in unicode escape"}
LITERAL = re.compile(rb"[\s:,\[](t.{3}|f.{4}|n.{3})\Z", re.DOTALL)
NO_NUMBER = re.compile(rb"-?\b(NaN|Infinity)\b")
WIDE = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))

# In JSON a backslash occurs only inside strings, so escapes are found without parsing the rest.
PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
ESCAPES = re.compile(PAIR + rb"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL)

MENDED = rb"\ufffd"  # for half a surrogate pair

ANY_VALUE: Mapping[str, str] = MappingProxyType({})

Result = TypeVar("Result")


def is_sent(field: Raw | UnsetType) -> bool:
    """Whether a body has this field: `null` equals absent."""
    return field is not UNSET and bytes(memoryview(field)[:4]) != b"null"


def begins(content: Raw | UnsetType, first: bytes) -> TypeGuard[Raw]:
    """Whether a field is there, and its JSON begins with one of these bytes: "[" with an array, "{" with an object."""
    return content is not UNSET and bytes(memoryview(content)[:1]) in first


def without_byte_order_mark(raw: bytes) -> bytes:
    """RFC 8259, 8.1: a parser may ignore it. Editors and PowerShell write it."""
    return raw.removeprefix(BYTE_ORDER_MARK)


def parse_body(sent: bytes, decode: Callable[[bytes], Result], explain: Callable[[msgspec.ValidationError], ClientError]) -> Result:
    """Parses a whole body by `decode`. `explain` makes a client's error of msgspec's, about a field.

    Raises that error, InvalidJSON, and any ClientError of `decode` itself.
    """
    raw = without_byte_order_mark(sent)
    try:
        # msgspec does not check the fields that it ignores; by the contract the whole body must be UTF-8.
        raw.isascii() or raw.decode()
        return decode_mended(raw, decode)
    except msgspec.ValidationError as error:
        raise explain(error) from None
    except (RecursionError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise _invalid_json(raw, error, start=len(sent) - len(raw)) from None


def wrong_field(error: msgspec.ValidationError, expected: Mapping[str, str], allowed: Mapping[str, str] = ANY_VALUE) -> ClientError:
    """msgspec's error in the contract's words. msgspec gives the path, as `$.input[0]`, and the type it got if that is wrong.

    `expected` has the type of each field in words, `allowed` the end of a sentence about values of that type that are not allowed.
    A field inside another has the words of its own name, if there are any, else those of the field that it is in.
    """
    text = str(error)
    place = FIELD_PATH.search(text)
    got = "object" if text.startswith("Object missing") else (GOT.search(text) or (None, None))[1]
    param = re.split(r"[.\[]", place[1])[0] if place else None
    if place is None or param is None or param not in expected:
        return InvalidType("The body of your request must be a JSON object.")
    if got is None and param in allowed:
        return InvalidValue(f"Invalid value for '{param}'{allowed[param]}", param=param)
    found = f", but got {_type_name(got)} instead" if got else ""
    own = SUBSCRIPT.sub("", place[1]).rpartition(".")[2]
    return InvalidType(f"Invalid type for '{place[1]}': expected {expected.get(own, expected[param])}{found}.", param=param)


def _type_name(json_type: str) -> str:
    return {
        "str": "a string", "int": "an integer", "float": "a number", "bool": "a boolean", "null": "null", "array": "an array",
        "object": "an object",
    }.get(json_type, "another type")  # fmt: skip


def decode_mended(raw: bytes, decode: Callable[[bytes], Result]) -> Result:
    """Decodes JSON, a second time with MENDED in the place of lone surrogates if it has any. Raises what `decode` raises."""
    try:
        return decode(raw)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if (mended := _without_lone_surrogates(raw)) == raw:
            raise
    return decode(mended)


def decode_integers(raw: bytes, decoder: msgspec.json.Decoder[Result], fields: Iterable[str]) -> Result:
    """Decodes a body in which an integer may be written 128.0, in `fields` and in arrays there. By JSON Schema it is one.

    Only a body with such a number is parsed twice, and only these fields of it. Raises what `decoder.decode` raises.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
    body = msgspec.json.decode(raw, type=dict[str, Raw])
    for name in body.keys() & set(fields):
        with suppress(msgspec.ValidationError):  # a number that no float holds: `decoder` says where it stands
            body[name] = Raw(msgspec.json.encode(_whole(msgspec.json.decode(body[name]))))
    return decoder.decode(msgspec.json.encode(body))


def _whole(value: Any) -> Any:
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_lone_surrogates(raw: bytes) -> bytes:
    """Replaces half a surrogate pair, as from a cut PDF page, by U+FFFD, which also replaces broken UTF-8 from token ids."""
    return ESCAPES.sub(lambda escape: MENDED if escape["lone"] else escape[0], raw)


def _invalid_json(raw: bytes, error: Exception, *, start: int = 0) -> InvalidJSON:
    """The client's error if msgspec or a codec raised `error` for `raw`. `start` is the index of its first byte in the body."""
    if isinstance(error, RecursionError):
        return InvalidJSON("it is nested too deeply")
    if wide := _wide_encoding(raw):
        return InvalidJSON(f"it is {wide}: send it as UTF-8")
    if isinstance(error, UnicodeDecodeError):
        return InvalidJSON(f"it is not UTF-8, at byte {start + error.start}")
    if not raw.strip():
        return InvalidJSON("it is empty")
    if found := PLACE.match(str(error)):
        position = _exact_position(raw, int(found[2]), found[1])
        return InvalidJSON(f"{_reason_at(raw, position) or found[1]}, at byte {start + position}")
    return InvalidJSON(f"it is cut short: it ends at byte {start + len(raw)}")


def _wide_encoding(raw: bytes) -> str | None:
    """UTF-16 or UTF-32, by a byte order mark or by zeros in the first characters: JSON begins with ASCII. None for neither."""
    marked = next((name for mark, name in WIDE if raw.startswith(mark)), None)
    if marked is None and b"\0" in raw[:2] and len(raw) > 1:
        return "UTF-32" if raw[:4].count(0) > 2 else "UTF-16"  # noqa: PLR2004 - three of four
    return marked


def _exact_position(raw: bytes, position: int, reason: str) -> int:
    if reason in READ_PAST:
        return position - 1
    word = LITERAL.search(b" " + raw[max(0, position - 6) : position]) if reason == "invalid character" else None
    if word is None:
        return position
    right = {b"t": b"true", b"f": b"false", b"n": b"null"}[word[1][:1]]
    wrong = next((index for index, (got, due) in enumerate(zip(word[1], right, strict=True)) if got != due), len(right))
    return position - len(right) + wrong


def _reason_at(raw: bytes, position: int) -> str | None:
    """The reason, if it is a common mistake: single quotes, NaN or Infinity."""
    if raw[position : position + 1] == b"'":
        return "strings stand in double quotes"
    if NO_NUMBER.match(raw, position) or NO_NUMBER.match(raw, max(0, position - 1)):
        return "NaN and Infinity are no JSON"
    return None
