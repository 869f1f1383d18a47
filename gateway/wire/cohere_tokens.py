"""Cohere's tokens: the reply of /v1/tokenize to a body with `text`, and the body and reply of /v1/detokenize.

Source: Cohere's API reference (docs.cohere.com/reference/tokenize, November 2026). The ids are of the model's own tokenizer.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.errors import EmptyInput, InputTooLong, InvalidValue, MissingParameter
from gateway.wire.cohere_response import CohereVersion
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import parse_body, wrong_field
from gateway.wire.request import model_of
from gateway.wire.token_ids import MAX_INPUT_IDS

EXPECTED = {"tokens": "an array of token ids", "model": "a string"}
MAX_ID = 2**32 - 1  # what the tokenizers library takes


class CohereTokenMeta(Struct, frozen=True):
    api_version: CohereVersion


class CohereTokens(Struct, frozen=True):
    """The tokens of a text, as ids and as the vocabulary writes them."""

    tokens: list[int]
    token_strings: list[str]
    meta: CohereTokenMeta


class DetokenizeBody(Struct, kw_only=True):
    """The body of /v1/detokenize, in JSON's types. `null` equals absent, and unknown fields are ignored."""

    tokens: Annotated[
        list[int | float] | UnsetType | None,
        Meta(
            description="Ids of the model's own tokenizer.",
            extra_json_schema={
                "oneOf": [{"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": MAX_INPUT_IDS}]
            },
        ),
    ] = UNSET
    model: Annotated[str | None, Meta(description="A model's name or alias, as /v1/models lists them.")] = None


class CohereText(Struct, frozen=True):
    """The text of the tokens."""

    text: str
    meta: CohereTokenMeta


@dataclass(frozen=True, slots=True)
class DetokenizeRequest:
    model: str
    ids: list[int]


_decoder = msgspec.json.Decoder(DetokenizeBody)


def decode_tokens(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> DetokenizeRequest:
    """Parses a body of /v1/detokenize. Any bytes at all give a request or a ClientError that names what is wrong."""
    body = parse_body(raw, _decode_body, partial(wrong_field, expected=EXPECTED))
    if body.tokens is None or body.tokens is UNSET:
        raise MissingParameter("tokens")
    model = model_of(path_model, body.model, default_model)
    if not body.tokens:
        raise EmptyInput("Invalid 'tokens': the array must not be empty.", param="tokens")
    if len(body.tokens) > MAX_INPUT_IDS:
        raise InputTooLong("tokens", MAX_INPUT_IDS)
    return DetokenizeRequest(model, [_id_of(each, index) for index, each in enumerate(body.tokens)])


def _id_of(number: float, index: int) -> int:
    """An id, which JSON may write 5.0. Raises InvalidValue."""
    if number != int(number) or not 0 <= number <= MAX_ID:
        raise InvalidValue(f"Invalid value for 'tokens[{index}]': an id is an integer of 0 or more.", param="tokens")
    return int(number)


def _decode_body(raw: bytes) -> DetokenizeBody:
    refuse_too_many(raw, MAX_INPUT_IDS, field="tokens")
    return _decoder.decode(raw)
