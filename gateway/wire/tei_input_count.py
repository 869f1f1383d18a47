"""Counts the inputs of the many bodies that /vertex takes at once, before any of them becomes an object. See input_count.py."""

from collections.abc import Iterable

import msgspec
from msgspec import UNSET, Raw

from gateway.errors import InputTooLong, RequestTooLong, TooManyInputs
from gateway.wire.input_count import MIN_BYTES, count_ids, elements_of, outline_decoder
from gateway.wire.json_body import begins
from gateway.wire.token_ids import MAX_INPUT_IDS, MAX_REQUEST_IDS

_few_elements_decoder = msgspec.json.Decoder(list[Raw])


def refuse_too_many_together(bodies: Iterable[Raw], max_inputs: int, *, field: str) -> None:
    """Bounds the inputs in `field` of several bodies, and their token ids, all together. Bodies that are no objects count as one.

    Raises TooManyInputs or RequestTooLong as soon as there are more, InputTooLong, and RecursionError.
    """
    num_inputs = num_ids = 0
    for body in bodies:
        inputs, ids = _counts_of(body, field)
        num_inputs, num_ids = num_inputs + inputs, num_ids + ids
        if num_inputs > max_inputs:
            raise TooManyInputs(f"more than {max_inputs}", max_inputs, param=field)
        if num_ids > MAX_REQUEST_IDS:
            raise RequestTooLong(f"more than {MAX_REQUEST_IDS}", MAX_REQUEST_IDS)


def _counts_of(body: Raw, field: str) -> tuple[int, int]:
    """How many inputs a body has in `field`, and how many token ids are in them. Raises InputTooLong."""
    content = outline_decoder(field).decode(body).content if begins(body, b"{") else UNSET
    if not begins(content, b"["):
        return 1, 0
    try:
        elements = elements_of(content) if len(memoryview(content)) >= MIN_BYTES else _few_elements_decoder.decode(content)
    except msgspec.ValidationError:
        raise InputTooLong(field, MAX_INPUT_IDS) from None
    if elements and begins(elements[0], b"-0123456789"):
        return 1, len(elements)
    return len(elements), count_ids(elements)
