"""Cohere's embed API, v1 and v2: its bodies to requests of ours.

Sources: Cohere's API reference (docs.cohere.com/reference/embed, November 2026) and the types of cohere-python 7.3.1. Images are
refused by name: this server embeds text alone.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.config import LongInput
from gateway.errors import EmptyInput, InvalidType, InvalidValue, MissingParameter, TooManyInputs
from gateway.wire.cohere_fields import ForeignCohereFields, refuse_foreign_fields
from gateway.wire.input_count import elements_of, refuse_too_many
from gateway.wire.json_body import begins, is_sent, parse_body, wrong_field
from gateway.wire.request import MAX_DIMENSIONS, MAX_INPUTS, TEXT, EmbeddingsRequest, model_of
from gateway.wire.token_ids import MAX_INPUT_IDS

Version = Literal["1", "2"]
EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]

# Purposes that Cohere's models know and most others have no prompt for: their texts get none then, as the reply's header says.
OPTIONAL_PURPOSES = ("classification", "clustering")
RULES: dict[str | None, LongInput] = {None: "end", "END": "end", "NONE": "error"}

IMAGE = "image"  # the purpose of what is no text
TEXT_ONLY = "this server embeds text alone."
NULL = {"type": "null"}
COUNT = {"oneOf": [{"type": "integer", "minimum": 1, "maximum": MAX_DIMENSIONS}, NULL]}
PRIORITY = {"oneOf": [{"type": "integer", "minimum": 0, "maximum": MAX_DIMENSIONS}, NULL]}
NO_IMAGES = {"oneOf": [{"type": "array", "maxItems": 0}, NULL]}
TEXTS = {"oneOf": [{"type": "array", "items": TEXT, "minItems": 1, "maxItems": MAX_INPUTS}, NULL]}
PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": TEXT},
    "required": ["type", "text"],
    "description": "A part of a text. Several parts are joined by line breaks.",
}
INPUT = {"type": "object", "properties": {"content": {"type": "array", "items": PART, "minItems": 1}}, "required": ["content"]}
INPUTS = {"oneOf": [{"type": "array", "items": INPUT, "minItems": 1, "maxItems": MAX_INPUTS}, NULL]}

EXPECTED = {
    "texts": "an array of strings",
    "inputs": "an array of objects",
    "model": "a string",
    "input_type": "a string",
    "embedding_types": "an array of strings",
    "truncate": "a string",
    "output_dimension": "a positive integer",
    "max_tokens": "a positive integer",
    "priority": "an integer of 0 or more",
}
ALLOWED = {
    "embedding_types": f". Supported values: {', '.join(map(repr, get_args(EmbeddingType)))}.",
    "truncate": ": supported are 'END' and 'NONE': long texts are cut at their end, or refused.",
    "output_dimension": f": expected an integer from 1 to {MAX_DIMENSIONS}.",
    "max_tokens": f": expected an integer from 1 to {MAX_DIMENSIONS}.",
    "priority": ": expected an integer of 0 or more.",
}


@dataclass(frozen=True, slots=True)
class CohereEmbedRequest:
    """A parsed request. `types` are the requested types, each once; None for v1's reply without types.

    `max_tokens` is the length to cut texts to; None is the model's own.
    """

    request: EmbeddingsRequest
    version: Version
    types: tuple[EmbeddingType, ...] | None
    max_tokens: int | None


class CohereEmbedBody(ForeignCohereFields, kw_only=True):
    """The body of /v1/embed and /v2/embed, in JSON's types. `null` equals absent, and unknown fields are ignored if they
    would change no vector."""

    model: Annotated[str | None, Meta(description="A model's name or alias, as /v1/models lists them.")] = None
    texts: Annotated[list[str] | None, Meta(description="The texts.", extra_json_schema=TEXTS)] = None
    inputs: Annotated[Raw | UnsetType, Meta(description="Texts in parts, in place of `texts`.", extra_json_schema=INPUTS)] = UNSET
    images: Annotated[Raw | UnsetType, Meta(description="Refused: this server embeds text alone.", extra_json_schema=NO_IMAGES)] = (
        UNSET
    )
    input_type: Annotated[
        str | None,
        Meta(
            description="search_query, search_document, or any other value of input_type at /v1/embeddings; classification and"
            " clustering add nothing for a model without such a prompt. Required at /v2/embed.",
            extra_json_schema={"not": {"const": IMAGE}},
        ),
    ] = None
    embedding_types: Annotated[
        list[EmbeddingType] | None,
        Meta(
            description="float by default; base64 is that of the little-endian float32 bytes, binary and ubinary are eight"
            " dimensions a byte."
        ),
    ] = None
    truncate: Annotated[
        Literal["NONE", "END"] | None,
        Meta(description="What becomes of a text longer than the model reads: END, the default, cuts it; NONE refuses it."),
    ] = None
    output_dimension: Annotated[
        int | float | None, Meta(description="The first so many components, made length 1 again.", extra_json_schema=COUNT)
    ] = None
    max_tokens: Annotated[
        int | float | None, Meta(description="No less than the model reads at once.", extra_json_schema=COUNT)
    ] = None
    priority: Annotated[
        int | float | None,
        Meta(description="Above 0: while the model is busy, requests of priority 0 go first.", extra_json_schema=PRIORITY),
    ] = None


class _TextInput(Struct):
    content: Raw = Raw(b"null")


class _Part(Struct):
    type: str | None = None
    text: str | None = None


_body_decoder = msgspec.json.Decoder(CohereEmbedBody)
_input_decoder = msgspec.json.Decoder(_TextInput)
_part_decoder = msgspec.json.Decoder(_Part)


def decode(raw: bytes, *, version: Version, path_model: str | None = None, default_model: str | None = None) -> CohereEmbedRequest:
    """Parses a body. Raises a ClientError that names what is wrong. Any bytes at all give a request or a ClientError."""
    body = parse_body(raw, _decode_body, partial(wrong_field, expected=EXPECTED, allowed=ALLOWED))
    refuse_foreign_fields(body)
    texts, field = _texts_of(body)
    model = model_of(path_model, body.model, default_model)
    if body.input_type is None and version == "2":
        raise MissingParameter("input_type")
    if body.input_type == IMAGE:
        raise InvalidValue(f"Invalid value for 'input_type': {TEXT_ONLY}", param="input_type")
    types: tuple[EmbeddingType, ...] = tuple(dict.fromkeys(body.embedding_types or ()))
    request = EmbeddingsRequest(
        texts=texts,
        model=model,
        is_array=True,
        output_dtypes=tuple(dict.fromkeys("float" if each == "base64" else each for each in types or ("float",))),
        dimensions=_count(body.output_dimension, "output_dimension"),
        long_input=RULES[body.truncate],
        input_type=body.input_type,
        is_prompt_optional=body.input_type in OPTIONAL_PURPOSES,
        is_default_rule=body.truncate is None,
        is_background=bool(_count(body.priority, "priority", least=0)),
        sent_as={
            "input": field,
            "dimensions": "output_dimension",
            "long_input": "truncate",
            "output_dtype": "embedding_types",
        },
    )
    shown = types or (("float",) if version == "2" else None)
    return CohereEmbedRequest(request, version, shown, _count(body.max_tokens, "max_tokens"))


def _decode_body(raw: bytes) -> CohereEmbedBody:
    refuse_too_many(raw, MAX_INPUTS, field="texts")
    return _body_decoder.decode(raw)


def _count(value: float | None, field: str, *, least: int = 1) -> int | None:
    """A whole number, which JSON may write 128.0. Raises InvalidValue."""
    if value is None:
        return None
    if value != int(value) or not least <= value <= MAX_DIMENSIONS:
        raise InvalidValue(f"Invalid value for '{field}'{ALLOWED[field]}", param=field)
    return int(value)


def _texts_of(body: CohereEmbedBody) -> tuple[list[str], str]:
    """The texts, and the name of the field that they stood in. Raises a ClientError unless exactly one field has some."""
    if not _is_empty(body.images):
        raise InvalidValue(f"Invalid value for 'images': {TEXT_ONLY}", param="images")
    has_inputs = is_sent(body.inputs)
    if body.texts is not None and has_inputs:
        raise InvalidValue("Invalid value for 'inputs': 'texts' is there too; send one of them.", param="inputs")
    if body.texts is None and not has_inputs:
        raise MissingParameter("texts")
    texts, field = (_texts_of_inputs(body.inputs), "inputs") if has_inputs else (body.texts or [], "texts")
    if not texts:
        raise EmptyInput(f"Invalid '{field}': the array must not be empty.", param=field)
    if len(texts) > MAX_INPUTS:
        raise TooManyInputs(len(texts), MAX_INPUTS, param=field)
    if not all(texts):
        raise EmptyInput(f"Invalid '{field}[{texts.index('')}]': a text cannot be an empty string.", param=field)
    return texts, field


def _is_empty(content: Raw | UnsetType) -> bool:
    return content is UNSET or bytes(content).translate(None, b" \t\r\n") in {b"null", b"[]"}


def _texts_of_inputs(inputs: Raw | UnsetType) -> list[str]:
    return [_text_of_input(element, f"inputs[{index}]") for index, element in enumerate(_elements(inputs, "inputs"))]


def _text_of_input(element: Raw, where: str) -> str:
    """The text of an input of parts. Raises InvalidType, and InvalidValue for a part that is no text."""
    try:
        content = _input_decoder.decode(element).content
        parts = [_part_decoder.decode(part) for part in _elements(content, f"{where}.content")]
    except msgspec.ValidationError:
        raise InvalidType(
            f"Invalid type for '{where}': expected an object whose 'content' is an array of parts.", param="inputs"
        ) from None
    for index, part in enumerate(parts):
        if part.type != "text":
            raise InvalidValue(f"Invalid value for '{where}.content[{index}].type': {TEXT_ONLY}", param="inputs")
        if part.text is None:
            raise MissingParameter(f"{where}.content[{index}].text")
    return "\n".join(part.text or "" for part in parts)


def _elements(array: Raw | UnsetType, where: str) -> list[Raw]:
    """The elements of an array. Raises InvalidType if it is none, and TooManyInputs."""
    if not begins(array, b"["):
        raise InvalidType(f"Invalid type for '{where}': expected an array.", param="inputs")
    try:
        elements = elements_of(array)
    except msgspec.ValidationError:  # it stopped at the first element too many
        raise TooManyInputs(f"more than {MAX_INPUT_IDS}", MAX_INPUTS, param=where) from None
    if len(elements) > MAX_INPUTS:
        raise TooManyInputs(len(elements), MAX_INPUTS, param=where)
    return elements
