"""POST /v1/tokenize, an endpoint of our own: the tokens of texts, by the model's own tokenizer, for clients that cut texts."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.errors import EmptyInput, InvalidValue, MissingParameter
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import decode_integers, is_sent, parse_body, wrong_field
from gateway.wire.request import (
    EXPECTED,
    FORMS,
    MAX_INPUTS,
    ONE_PURPOSE,
    TEXT,
    EmbeddingsRequest,
    Sent,
    has_ids,
    is_one_input,
    model_of,
    one_shape,
    purpose_of,
)
from gateway.wire.response import Count, EmbeddingsUsage

OWN_EXPECTED = {**EXPECTED, "text": "a string", "add_special_tokens": "a boolean", "return_offsets": "a boolean"}


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """`asked` are the texts, their model and prompt. `return_offsets`: also where each token stands in its text.

    `is_cohere`: the one text was sent as Cohere's clients send it, and the reply is Cohere's.
    """

    asked: EmbeddingsRequest
    add_special_tokens: bool = True
    return_offsets: bool = False
    is_cohere: bool = False


class TokenizeBody(Struct, kw_only=True):
    """The body, in JSON's types. `null` equals absent, and unknown fields are ignored."""

    together: ClassVar = ONE_PURPOSE
    input: Annotated[
        Sent | UnsetType | None,
        Meta(
            description="In the forms of /v1/embeddings; token ids are cl100k_base's.",
            extra_json_schema={"oneOf": [*FORMS, {"type": "null"}]},
        ),
    ] = UNSET
    model: Annotated[str | None, Meta(description="A model's name or alias, as /v1/models lists them.")] = None
    add_special_tokens: Annotated[
        bool | None,
        Meta(description="false leaves out the tokens that stand around a text, as [CLS] does. By default they are counted."),
    ] = None
    input_type: Annotated[str | None, Meta(description="As of /v1/embeddings: the prompt's tokens are counted too.")] = None
    prompt_name: Annotated[str | None, Meta(description="A synonym of input_type; one of the two at most.")] = None
    return_offsets: Annotated[bool | None, Meta(description="true adds where in its text each token stands.")] = None
    text: Annotated[
        str | None,
        Meta(
            description="Cohere's, in place of input: one text, without special tokens; the reply is Cohere's then.",
            extra_json_schema={"oneOf": [TEXT, {"type": "null"}]},
        ),
    ] = None


class TextTokens(Struct):
    """The tokens of one text."""

    object: Literal["tokens"]
    index: Count
    tokens: Annotated[list[int], Meta(description="Ids of the model's own tokenizer, in full, however long the text is.")]
    count: Count
    offsets: Annotated[
        list[tuple[int, int]] | UnsetType,
        Meta(description="The start and the stop of each token, in characters (code points) of the text; 0 and 0 outside of it."),
    ] = UNSET


class TokenizeResponse(Struct):
    """The whole reply. `usage` counts all tokens; they are charged to no limit and no budget."""

    object: Literal["list"]
    data: Annotated[list[TextTokens], Meta(min_length=1, description="In the order of the inputs.")]
    model: Annotated[str, Meta(description="The name that the client sent.")]
    max_tokens: Annotated[int, Meta(ge=1, description="Tokens that the model reads at once, special ones included.")]
    usage: EmbeddingsUsage


class _TokenizeOutline(Struct):
    text: Raw | UnsetType = UNSET
    input: Raw | UnsetType = UNSET


_decoder = msgspec.json.Decoder(TokenizeBody)
_outline_decoder = msgspec.json.Decoder(_TokenizeOutline)


def is_cohere(raw: bytes) -> bool:
    """Whether a body is Cohere's: it has `text`, and no `input`. Raises InvalidJSON, InvalidType."""
    sent = parse_body(raw, _outline_decoder.decode, partial(wrong_field, expected=OWN_EXPECTED))
    return is_sent(sent.text) and not is_sent(sent.input)


def decode(
    raw: bytes, *, takes_text: bool = False, path_model: str | None = None, default_model: str | None = None
) -> TokenizeRequest:
    """Parses a body; one with `text` is Cohere's if `takes_text`.

    Raises a ClientError that names what is wrong; any bytes at all give a request or a ClientError.
    """
    body = parse_body(raw, _decode_body, partial(wrong_field, expected=OWN_EXPECTED))
    text = body.text if takes_text else None
    sent = None if body.input is UNSET else body.input
    if text is not None and sent is not None:
        raise InvalidValue("Invalid value for 'text': 'input' has texts too; send one of them.", param="text")
    if text is None and sent is None:
        raise MissingParameter("input")
    model = model_of(path_model, body.model, default_model)
    if sent is None:
        return _of_text(text or "", model)
    purpose = purpose_of(body.input_type, body.prompt_name)
    asked = EmbeddingsRequest(
        texts=one_shape(sent),
        model=model,
        is_array=not is_one_input(sent),
        has_ids=has_ids(sent),
        input_type=purpose,
        sent_as={} if body.prompt_name is None else {"input_type": "prompt_name"},
    )
    return TokenizeRequest(asked, body.add_special_tokens is not False, body.return_offsets is True)


def _of_text(text: str, model: str) -> TokenizeRequest:
    if not text:
        raise EmptyInput("Invalid 'text': a text cannot be an empty string.", param="text")
    asked = EmbeddingsRequest(texts=[text], model=model, is_array=False, sent_as={"input": "text"})
    return TokenizeRequest(asked, add_special_tokens=False, is_cohere=True)


def _decode_body(raw: bytes) -> TokenizeBody:
    refuse_too_many(raw, MAX_INPUTS)
    return decode_integers(raw, _decoder, ("input",))
