"""A JSON object as Python's json reads it, NaN and Infinity included. But of duplicate keys no value is chosen."""

import json
from typing import Any

from gateway.bulk.row import BadRow, LongInteger, RepeatedKeys

NO_JSON = "it is not JSON"
MAX_DIGITS = 4300  # Python's own limit, because conversion takes quadratic time


def _without_choice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedKeys(pairs)


def integer(digits: str) -> int | LongInteger:
    return int(digits) if len(digits) <= MAX_DIGITS else LongInteger(digits)


DECODER = json.JSONDecoder(object_pairs_hook=_without_choice)
LONG_DECODER = json.JSONDecoder(object_pairs_hook=_without_choice, parse_int=integer)


def json_object(text: str) -> dict[str, Any]:
    """Returns the object in a text. Raises BadRow if it is not a JSON object."""
    try:
        found = decoded(text)
    except (ValueError, RecursionError):
        raise BadRow(NO_JSON) from None
    if not isinstance(found, dict):
        raise BadRow("it is no JSON object")
    return found


def decoded(text: str) -> Any:
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of too many digits
        return LONG_DECODER.decode(text)
