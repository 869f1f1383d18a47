"""How many elements a body's `input` has, before any of them becomes an object.

An element of two bytes on the wire costs a hundred in memory, and Python's collector goes through them again and again: a body of
16 MB with four million arrays took 1.7 s, in which no other thread ran, and 417 MB, only to be refused for their number. Here it
takes 40 ms.
"""

from functools import cache

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import InputTooLong, RequestTooLong, TooManyInputs
from gateway.wire.token_ids import MAX_INPUT_IDS, MAX_REQUEST_IDS

MIN_BYTES = 64 * 1024  # a smaller body has 32,000 elements at most
NOTHING = Raw(b"")


class Outline(Struct):
    """`input` as it stands in the body; all else is passed over."""

    input: Raw | UnsetType = UNSET


outline = msgspec.json.Decoder(Outline)


def refuse_too_many(raw: bytes, max_inputs: int) -> None:
    """Raises TooManyInputs, InputTooLong or RequestTooLong where `input` has more elements than any request may have.

    What is no JSON raises msgspec's own error, and what is too deep RecursionError. What is let through has at most 8,192 elements,
    with 300,000 ids in them.
    """
    if len(raw) < MIN_BYTES:
        return
    try:
        content = outline.decode(raw).input
    except RecursionError:  # what is deep is told by its type, where it is not long too
        if raw.count(b",") > MAX_INPUT_IDS:
            raise
        return
    if content is UNSET or bytes(memoryview(content)[:1]) != b"[":
        return
    try:
        elements = [each for each in msgspec.structs.astuple(element_decoder().decode(content)) if each is not NOTHING]
    except msgspec.ValidationError:  # one too many, at which it stopped
        is_ids = bytes(memoryview(content)[1:100]).lstrip()[:1] in b"-0123456789"
        raise InputTooLong("input", MAX_INPUT_IDS) if is_ids else TooManyInputs(f"more than {MAX_INPUT_IDS}", max_inputs) from None
    num_ids = sum(1 + bytes(each).count(b",") for each in elements if bytes(memoryview(each)[:1]) == b"[")
    if num_ids > MAX_REQUEST_IDS:
        raise RequestTooLong(str(num_ids), MAX_REQUEST_IDS)


@cache
def element_decoder() -> msgspec.json.Decoder[Struct]:
    """Of an array of at most MAX_INPUT_IDS elements: the fields of a Struct, as msgspec bounds no other array while it reads."""
    fields = [(f"_{number}", Raw, NOTHING) for number in range(MAX_INPUT_IDS)]
    return msgspec.json.Decoder(msgspec.defstruct("Elements", fields, array_like=True, forbid_unknown_fields=True))
