"""text-embeddings-inference's POST /tokenize and /decode: texts to the model's own tokens, and ids to texts.

Offsets are in bytes of UTF-8, and reach into the prompt if there is one: TEI's are. Source: router/src/http/types.rs of TEI 1.9.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.errors import EmptyInput, InvalidType, InvalidValue, MissingParameter, TooManyInputs
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import parse_body, wrong_field
from gateway.wire.request import MAX_INPUTS, EmbeddingsRequest
from gateway.wire.tei import IDS_FORM, SENT_AS, TEXT_FORM, TokenId, array_of, required_model
from gateway.wire.tokenize import TokenizeRequest

EXPECTED = {
    "inputs": "a string or an array of strings",
    "add_special_tokens": "a boolean",
    "prompt_name": "a string",
    "ids": "an array of token ids, or an array of such arrays",
    "skip_special_tokens": "a boolean",
}
# The fields by which other servers' /tokenize is known: llama.cpp's, and vLLM's two.
FOREIGN = ("content", "prompt", "messages")


class TEITokenizeBody(Struct, kw_only=True):
    inputs: Annotated[
        str | list[str] | UnsetType,
        Meta(description="One text, or several.", extra_json_schema={"oneOf": [TEXT_FORM, array_of(TEXT_FORM)]}),
    ] = UNSET
    add_special_tokens: Annotated[bool, Meta(description="false: without the tokens that stand around a text.")] = True
    prompt_name: Annotated[str | None, Meta(description="One of the model's prompts, by its own name.")] = None
    content: Annotated[Raw | UnsetType, Meta(description="llama.cpp's: refused.")] = UNSET
    prompt: Annotated[Raw | UnsetType, Meta(description="vLLM's: refused.")] = UNSET
    messages: Annotated[Raw | UnsetType, Meta(description="vLLM's: refused.")] = UNSET


class TEIDecodeBody(Struct, kw_only=True):
    ids: Annotated[
        list[TokenId | list[TokenId]] | UnsetType,
        Meta(description="Ids of the model's own tokenizer.", extra_json_schema={"oneOf": [IDS_FORM, array_of(IDS_FORM)]}),
    ] = UNSET
    skip_special_tokens: Annotated[bool, Meta(description="false: the texts have the special tokens.")] = True


class SimpleToken(Struct):
    """A token. `start` and `stop` are bytes of the text, in UTF-8; null for a token that stands around it."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    model: str
    ids: list[list[int]]
    is_array: bool
    skip_special_tokens: bool


_tokenize_decoder = msgspec.json.Decoder(TEITokenizeBody)
_decode_decoder = msgspec.json.Decoder(TEIDecodeBody)
_wrong_field = partial(wrong_field, expected=EXPECTED)


def decode_tokenize(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> TokenizeRequest:
    """Parses a body of /tokenize. Any bytes at all give a request or a ClientError."""
    body = parse_body(raw, _tokenize_body, _wrong_field)
    if body.inputs is UNSET:
        if foreign := next((name for name in FOREIGN if getattr(body, name) is not UNSET), None):
            raise InvalidValue(
                f"this path speaks text-embeddings-inference's protocol, which has no `{foreign}`: send the texts as `inputs`,"
                " or ask /v1/tokenize.",
                param=foreign,
            )
        raise MissingParameter("inputs")
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if not texts or not all(texts):
        raise EmptyInput("Invalid 'inputs': a text must not be empty.", param="inputs")
    if len(texts) > MAX_INPUTS:
        raise TooManyInputs(len(texts), MAX_INPUTS, param="inputs")
    asked = EmbeddingsRequest(
        texts=texts,
        model=required_model(path_model or default_model, endpoint="tokenize"),
        is_array=len(texts) > 1,
        input_type=body.prompt_name,
        is_prompt_exact=True,
        sent_as=SENT_AS,
    )
    return TokenizeRequest(asked, body.add_special_tokens)


def decode_ids(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> DecodeRequest:
    """Parses a body of /decode, likewise."""
    body = parse_body(raw, _decode_body, _wrong_field)
    if body.ids is UNSET:
        raise MissingParameter("ids")
    num_ids = sum(type(each) is int for each in body.ids)
    if num_ids and num_ids < len(body.ids):
        raise InvalidType(f"Invalid type for 'ids': expected {EXPECTED['ids']}.", param="ids")
    arrays = body.ids if body.ids and not num_ids else [body.ids]
    if not all(arrays):
        raise EmptyInput("Invalid 'ids': an array of token ids must not be empty.", param="input_ids")  # TEI's name
    if len(arrays) > MAX_INPUTS:
        raise TooManyInputs(len(arrays), MAX_INPUTS, param="ids")
    model = required_model(path_model or default_model, endpoint="decode")
    return DecodeRequest(model, arrays, len(arrays) > 1, body.skip_special_tokens)  # type: ignore[arg-type]


def _tokenize_body(raw: bytes) -> TEITokenizeBody:
    refuse_too_many(raw, MAX_INPUTS, field="inputs")
    return _tokenize_decoder.decode(raw)


def _decode_body(raw: bytes) -> TEIDecodeBody:
    refuse_too_many(raw, MAX_INPUTS, field="ids")
    return _decode_decoder.decode(raw)
