"""text-embeddings-inference's bodies that ask for vectors: /embed, /similarity, /vertex, and what / and /invocations take.

Token ids are the model's own here, as they stand. What TEI's parser refuses is refused; a field that it ignores is ignored. Source:
router/src/http/types.rs of TEI 1.9, and what 1.9.3 answered.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from numpy.typing import NDArray

from gateway.config import LongInput
from gateway.errors import ClientError, EmptyInput, InvalidType, InvalidValue, MissingParameter, TooManyInputs
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import begins, parse_body, wrong_field
from gateway.wire.request import MAX_DIMENSIONS, MAX_INPUTS, EmbeddingsRequest
from gateway.wire.tei_input_count import refuse_too_many_together

Sentence = Annotated[str, Meta(extra_json_schema={"minLength": 1})]
TokenId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Direction = Literal["Right", "right", "Left", "left"]
LEFT = ("Left", "left")
DIRECTION = "Only the end of a text can be cut: Right. Left is taken where truncate is false, and nothing is cut."

EXPECTED = {
    "inputs": "a string, an array of strings, an array of token ids or an array of arrays of them",
    "truncate": "a boolean",
    "truncation_direction": "'Left' or 'Right'",
    "prompt_name": "a string",
    "normalize": "a boolean",
    "dimensions": "an integer",
    "parameters": "an object",
    "instances": "an array of objects",
}
OF_SIMILARITY = {
    **EXPECTED,
    "inputs": "an object of `source_sentence` and `sentences`",
    "source_sentence": "a string",
    "sentences": "an array of strings",
}
SENT_AS = {"input": "inputs", "input_type": "prompt_name", "long_input": "truncate"}
# TEI without `truncate` does what its flag --auto-truncate says; here the model's row says it.
RULES: dict[bool | None, LongInput | None] = {True: "end", False: "error", None: None}


def array_of(form: dict[str, object]) -> dict[str, object]:
    """The JSON schema of an array of inputs of this form."""
    return {"type": "array", "items": form, "minItems": 1, "maxItems": MAX_INPUTS}


TEXT_FORM: dict[str, object] = {"type": "string", "minLength": 1}
IDS_FORM: dict[str, object] = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}, "minItems": 1}
ONE_INPUT_FORMS = [TEXT_FORM, IDS_FORM]
INPUT_FORMS = [*ONE_INPUT_FORMS, array_of({"anyOf": ONE_INPUT_FORMS})]


# Of a body's schema: texts may be cut at their beginning only where none is cut at all, see `refuse_left`.
LEFT_CUTS_NOTHING: dict[str, object] = {
    "anyOf": [
        {"properties": {"truncation_direction": {"not": {"enum": list(LEFT)}}}},
        {"properties": {"truncate": {"const": False}}, "required": ["truncate"]},
    ]
}


class TextOptions(Struct, kw_only=True):
    """What /embed and /similarity have in common."""

    together: ClassVar = LEFT_CUTS_NOTHING

    truncate: Annotated[
        bool | None,
        Meta(description="true cuts a text longer than the model reads, false refuses it. By default what the model's row says."),
    ] = None
    truncation_direction: Annotated[Direction, Meta(description=DIRECTION)] = "Right"
    prompt_name: Annotated[str | None, Meta(description="One of the model's prompts, by its own name.")] = None


class EmbedBody(TextOptions, kw_only=True):
    inputs: Annotated[
        str | list[str | TokenId | list[TokenId]] | UnsetType,
        Meta(description="Texts, or ids of the model's own tokenizer.", extra_json_schema={"oneOf": INPUT_FORMS}),
    ] = UNSET
    normalize: Annotated[bool, Meta(description="false: the vectors as the model's own modules give them.")] = True
    dimensions: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_DIMENSIONS, extra_json_schema={"not": {"const": 0}})] | None,
        Meta(description="The first so many components, at least 1."),
    ] = None


class Sentences(Struct, kw_only=True):
    source_sentence: Sentence
    sentences: Annotated[list[Sentence], Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_INPUTS - 1})]


class SimilarityBody(Struct, kw_only=True):
    inputs: Sentences | UnsetType = UNSET
    parameters: TextOptions | None = None


class VertexBody(Struct, kw_only=True):
    instances: Annotated[
        list[Annotated[EmbedBody, Meta(extra_json_schema={"required": ["inputs"]})]] | UnsetType,
        Meta(
            description="Bodies of /embed, whose fields besides `inputs` are equal.",
            extra_json_schema={"minItems": 1, "maxItems": MAX_INPUTS},
        ),
    ] = UNSET


class _RawFields(Struct):
    """The fields that are looked at before anything in them becomes an object."""

    inputs: Raw = Raw(b"null")
    instances: Raw = Raw(b"null")


@dataclass(frozen=True, slots=True)
class TEIRequest:
    """A request for vectors. `encode` writes the reply, of rows of shape (n, dimensions)."""

    asked: EmbeddingsRequest
    encode: Callable[[NDArray[np.float32]], bytes]


_embed_decoder = msgspec.json.Decoder(EmbedBody)
_similarity_decoder = msgspec.json.Decoder(SimilarityBody)
_vertex_decoder = msgspec.json.Decoder(VertexBody)
_raw_decoder = msgspec.json.Decoder(_RawFields)
_elements_decoder = msgspec.json.Decoder(list[Raw])
_wrong_field = partial(wrong_field, expected=EXPECTED)

MISSING = re.compile(r"Object missing required field `(\w+)` - at `\$\.inputs`")


def decode_embed(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> TEIRequest:
    """Parses a body of /embed, which never names a model. Any bytes at all give a request or a ClientError."""
    body = parse_body(raw, _embed_body, _wrong_field)
    return TEIRequest(_request_of([body], path_model or default_model), encode_embed)


def decode_similarity(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> TEIRequest:
    """Parses a body of /similarity, likewise."""
    body = parse_body(raw, _similarity_body, _wrong_similarity)
    if body.inputs is UNSET:
        raise MissingParameter("inputs")
    sent = body.inputs
    if not sent.sentences:
        raise EmptyInput("Invalid 'inputs.sentences': the array must not be empty.", param="inputs.sentences")
    options = msgspec.structs.asdict(body.parameters or TextOptions())
    whole = EmbedBody(inputs=[sent.source_sentence, *sent.sentences], **options)
    return TEIRequest(_request_of([whole], path_model or default_model), _encode_similarity)


def decode_any(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> TEIRequest:
    """Parses a body of / or /invocations: huggingface_hub's client sends there what is for /embed and what is for /similarity."""
    is_similarity = begins(parse_body(raw, _raw_decoder.decode, _wrong_field).inputs, b"{")
    decode = decode_similarity if is_similarity else decode_embed
    return decode(raw, path_model=path_model, default_model=default_model)


def decode_vertex(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> TEIRequest:
    """Parses a body of /vertex. Raises InvalidValue for instances whose options differ: they would need several computations."""
    body = parse_body(raw, _vertex_body, _wrong_field)
    if body.instances is UNSET:
        raise MissingParameter("instances")
    if not body.instances:
        raise EmptyInput("Invalid 'instances': the array must not be empty.", param="instances")
    counts = [len(_inputs_of(each.inputs)) for each in body.instances]
    return TEIRequest(_request_of(body.instances, path_model or default_model), partial(_encode_vertex, counts=counts))


def _embed_body(raw: bytes) -> EmbedBody:
    refuse_too_many(raw, MAX_INPUTS, field="inputs")
    return _embed_decoder.decode(raw)


def _similarity_body(raw: bytes) -> SimilarityBody:
    refuse_too_many(bytes(_raw_decoder.decode(raw).inputs), MAX_INPUTS, field="sentences")
    return _similarity_decoder.decode(raw)


def _vertex_body(raw: bytes) -> VertexBody:
    refuse_too_many(raw, MAX_INPUTS, field="instances")
    instances = _raw_decoder.decode(raw).instances
    if begins(instances, b"["):
        refuse_too_many_together(_elements_decoder.decode(instances), MAX_INPUTS, field="inputs")
    return _vertex_decoder.decode(raw)


def _wrong_similarity(error: msgspec.ValidationError) -> ClientError:
    if missing := MISSING.match(str(error)):
        return MissingParameter(f"inputs.{missing[1]}")
    return wrong_field(error, OF_SIMILARITY)


def _request_of(bodies: list[EmbedBody], model: str | None) -> EmbeddingsRequest:
    """One request of bodies whose options are equal. Raises ClientError."""
    inputs = [each for body in bodies for each in _inputs_of(body.inputs)]
    first = bodies[0]
    if len(inputs) > MAX_INPUTS:
        raise TooManyInputs(len(inputs), MAX_INPUTS, param="inputs")
    _refuse_options(first, bodies)
    has_ids = any(isinstance(each, list) for each in inputs)
    return EmbeddingsRequest(
        texts=[each if isinstance(each, str) else "" for each in inputs],
        token_ids=[None if isinstance(each, str) else each for each in inputs] if has_ids else None,
        model=required_model(model, endpoint="embed"),
        is_array=len(inputs) > 1,
        dimensions=first.dimensions,
        normalize=first.normalize,
        long_input=RULES[first.truncate],
        input_type=first.prompt_name,
        is_prompt_exact=True,
        sent_as=SENT_AS,
    )


def required_model(model: str | None, *, endpoint: str) -> str:
    """The model of the path, or the default one. Raises InvalidValue if there is neither: TEI's bodies name no model."""
    if model:
        return model
    raise InvalidValue(
        f"no model is the default for this path: name one before it, as in /tei/{{model}}/{endpoint}.", param="model"
    )


def _inputs_of(sent: str | list[str | int | list[int]] | UnsetType) -> list[str | list[int]]:
    """The forms of `inputs` as one list. Texts and arrays of ids may be mixed. Raises a ClientError for any other form."""
    if sent is UNSET:
        raise MissingParameter("inputs")
    num_ids = 0 if isinstance(sent, str) else sum(type(each) is int for each in sent)
    if num_ids and num_ids < len(sent):
        raise InvalidType(f"Invalid type for 'inputs': expected {EXPECTED['inputs']}.", param="inputs")
    inputs = [sent] if isinstance(sent, str) or num_ids else sent
    if not inputs or not all(inputs):
        raise EmptyInput("Invalid 'inputs': an input must not be empty.", param="inputs")
    return inputs  # type: ignore[return-value]


def _refuse_options(first: EmbedBody, bodies: list[EmbedBody]) -> None:
    if any(msgspec.structs.replace(body, inputs=first.inputs) != first for body in bodies[1:]):
        raise InvalidValue("the instances must not differ in anything but their `inputs`.", param="instances")
    if first.dimensions == 0:
        raise InvalidValue("`dimensions` should be positive", param="dimensions")
    refuse_left(first.truncation_direction, truncate=first.truncate)


def refuse_left(direction: Direction | None, *, truncate: bool | None) -> None:
    """Raises InvalidValue if texts are to be cut at their beginning."""
    if truncate is not False and direction in LEFT:
        raise InvalidValue(
            "`truncation_direction` must be `Right`: only the end of a text can be cut.", param="truncation_direction"
        )


def num_characters(asked: EmbeddingsRequest) -> int:
    """As TEI counts them: an id is one."""
    ids = asked.token_ids or ()
    return sum(map(len, asked.texts)) + sum(len(each) for each in ids if each is not None)


def encode_embed(rows: NDArray[np.float32]) -> bytes:
    """`[[…], …]`. A float is the shortest text that parses to the same float32."""
    return orjson.dumps(np.ascontiguousarray(rows, dtype="<f4"), option=orjson.OPT_SERIALIZE_NUMPY)


def _encode_similarity(rows: NDArray[np.float32]) -> bytes:
    """The cosine of the first row and each of the others, which all have length 1 but for rounding: it may not leave -1 to 1."""
    cosines = np.clip(rows[1:] @ rows[0], -1, 1)
    return orjson.dumps(np.ascontiguousarray(cosines, dtype="<f4"), option=orjson.OPT_SERIALIZE_NUMPY)


def _encode_vertex(rows: NDArray[np.float32], *, counts: list[int]) -> bytes:
    """`{"predictions": [what /embed replies, …]}`, one for each instance."""
    parts = np.split(rows, np.cumsum(counts)[:-1])
    return b'{"predictions":[' + b",".join(map(encode_embed, parts)) + b"]}"
