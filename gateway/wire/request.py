"""Parses the body of POST /v1/embeddings, in all forms of `input`, into one shape. Source: OpenAI's OpenAPI 2.3.0."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.config import LongInput, OutputDtype
from gateway.errors import ClientError, EmptyInput, InvalidType, InvalidValue, MissingParameter, TooManyInputs
from gateway.wire.foreign_fields import ForeignFields, refuse_second, translate
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import decode_integers, parse_body, wrong_field
from gateway.wire.token_ids import MAX_INPUT_IDS, TOKEN_ID_RANGES, texts_of

MAX_INPUTS = 2048
MAX_INSTRUCTION_CHARS = 2048
MAX_DIMENSIONS = 2**53  # the largest integer that every JSON parser represents exactly; models have far fewer

EncodingFormat = Literal["float", "base64"]

# The JSON Schema of `input`, which msgspec's types cannot express: OpenAI's four forms and Jina's, never a mixture of them.
TEXT = {"type": "string", "minLength": 1}
TOKEN_ID = {
    "anyOf": [{"type": "integer", "minimum": first, "maximum": last} for first, last in TOKEN_ID_RANGES],
    "description": "A token of cl100k_base.",
}
TOKENS = {"type": "array", "items": TOKEN_ID, "minItems": 1, "maxItems": MAX_INPUT_IDS}
TEXT_OBJECT = {"type": "object", "properties": {"text": TEXT}, "required": ["text"], "additionalProperties": False}
FORMS = [
    TEXT,
    {"type": "array", "items": TEXT, "minItems": 1, "maxItems": MAX_INPUTS},
    TOKENS,
    {"type": "array", "items": TOKENS, "minItems": 1, "maxItems": MAX_INPUTS},
    {"type": "array", "items": TEXT_OBJECT, "minItems": 1, "maxItems": MAX_INPUTS},
]

# Of a body's schema: synonyms, of which `purpose_of` takes one.
ONE_PURPOSE: dict[str, object] = {"anyOf": [{"properties": {name: {"type": "null"}}} for name in ("input_type", "prompt_name")]}

EXPECTED = {
    "input": "a string, an array of strings, an array of integers or an array of arrays of integers",
    "model": "a string",
    "encoding_format": "a string",
    "output_dtype": "a string",
    "dimensions": "an integer",
    "user": "a string",
    "normalize": "a boolean",
    "long_input": "a string",
    "input_type": "a string",
    "prompt_name": "a string",
    "instruction": "a string",
}


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """A parsed request. `texts` is `input` in any form, token ids decoded; `is_array` is true if it was an array of inputs.

    `sent_as` has the names of the fields that the client used in place of ours, for errors. `max_tokens` is the length that
    `truncate_prompt_tokens` cuts to: it must be the model's own. `has_ids` is true if `input` was token ids.
    `is_prompt_optional`: a purpose that the model has no prompt for adds none, and is no error. `is_default_rule`: another
    server's API cuts long texts by default; a model that cannot applies its own rule. `is_background`: other requests go first.
    `output_dtypes` are the types that the vectors are wanted in; OpenAI's protocol has one, others have several.
    `token_ids` are inputs as ids of the model's own tokenizer, see Inputs. `is_prompt_exact`: only the model's own names are known.
    """

    texts: list[str]
    model: str
    is_array: bool
    encoding_format: EncodingFormat = "float"
    output_dtypes: tuple[OutputDtype, ...] = ("float",)
    dimensions: int | None = None
    normalize: bool = True
    long_input: LongInput | None = None
    input_type: str | None = None
    instruction: str | None = None
    max_tokens: int | None = None
    has_ids: bool = False
    token_ids: list[list[int] | None] | None = None
    is_prompt_exact: bool = False
    is_prompt_optional: bool = False
    is_default_rule: bool = False
    is_background: bool = False
    sent_as: dict[str, str] = field(default_factory=dict)

    @property
    def asked_prompt(self) -> str | None:
        return self.input_type or self.instruction


class TextObject(Struct, forbid_unknown_fields=True):
    """A text as Jina's clients write it beside images, which are refused."""

    text: str


Sent: TypeAlias = str | list[str | int | list[int] | TextObject]


class EmbeddingsBody(ForeignFields, kw_only=True):
    """The body, in JSON's types. `null` equals absent, and unknown fields are ignored.

    /openapi.json takes its schema from here, so a field's bounds are declared once; they are checked while the body is parsed.
    """

    together: ClassVar = ONE_PURPOSE
    input: Annotated[
        Sent | UnsetType | None,
        Meta(
            description="Texts, token ids, or Jina's objects with a text.",
            extra_json_schema={"oneOf": FORMS},
        ),
    ] = UNSET
    model: Annotated[str | None, Meta(description="A model's name or alias, as /v1/models lists them.")] = None
    encoding_format: Annotated[
        EncodingFormat | None, Meta(description="float, by default: numbers; or base64 of the vector's little-endian bytes.")
    ] = None
    output_dtype: Annotated[
        OutputDtype | None,
        Meta(
            description="The type of a vector's numbers: float, by default (float32), float16, int8, uint8, or binary and ubinary:"
            " eight dimensions in each number."
        ),
    ] = None
    dimensions: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_DIMENSIONS)] | None, Meta(description="The first so many components, made length 1 again.")
    ] = None
    user: Annotated[str | None, Meta(description="Accepted, and used for nothing.")] = None
    normalize: Annotated[
        bool | None, Meta(description="false: the vectors as the model's own modules give them; true by default.")
    ] = None
    long_input: Annotated[
        LongInput | None,
        Meta(description="What becomes of a text longer than the model reads. By default what the model's row says."),
    ] = None
    input_type: Annotated[
        str | None,
        Meta(
            description="Which of the model's prompts is put before the text: query, document, their synonyms, or any other name it"
            " has."
        ),
    ] = None
    prompt_name: Annotated[str | None, Meta(description="A synonym of input_type; one of the two at most.")] = None
    instruction: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_INSTRUCTION_CHARS)] | None,
        Meta(description="What a query is for, of a model that takes one."),
    ] = None


# The allowed values of a field, in an error's words, for values of the right type outside the bounds above.
ALLOWED = {
    "encoding_format": f". Supported values: {', '.join(map(repr, get_args(EncodingFormat)))}.",
    "output_dtype": f". Supported values: {', '.join(map(repr, get_args(OutputDtype)))}.",
    "dimensions": ". Must be greater than or equal to 1.",
    "dimensions above": f". Must be less than or equal to {MAX_DIMENSIONS}.",
    "long_input": f". Supported values: {', '.join(map(repr, get_args(LongInput)))}.",
    "instruction": f": expected 1 to {MAX_INSTRUCTION_CHARS} characters.",
}
# Our fields that may contradict a foreign one, by the field that it translates to.
OWN_FIELDS: dict[str, tuple[str, ...]] = {
    "input_type": ("prompt_name", "input_type"),
    "dimensions": ("dimensions",),
    "encoding_format": ("encoding_format",),
    "output_dtype": ("output_dtype",),
    "long_input": ("long_input",),
    "normalize": ("normalize",),
    "max_tokens": (),
}
INTEGERS = ("input", "dimensions")  # the fields that hold some
decoder = msgspec.json.Decoder(EmbeddingsBody)


def decode(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> EmbeddingsRequest:
    """Parses a body. `path_model`, from the path, overrides the body's model; `default_model` is used if neither names one.

    Raises a ClientError that names what is wrong. Any bytes at all give a request or a ClientError.
    """
    body = parse(raw)
    foreign = translate(body)
    honour(foreign, body)
    if body.input is None or body.input is UNSET:
        raise MissingParameter("input")
    model = model_of(path_model, body.model, default_model)
    purpose = purpose_of(body.input_type, body.prompt_name)
    return EmbeddingsRequest(
        texts=one_shape(body.input),
        model=model,
        is_array=not is_one_input(body.input),
        has_ids=has_ids(body.input),
        encoding_format=body.encoding_format or "float",
        output_dtypes=(body.output_dtype or "float",),
        dimensions=body.dimensions,
        normalize=body.normalize is not False,
        long_input=body.long_input,
        max_tokens=foreign["max_tokens"][1] if "max_tokens" in foreign else None,
        input_type=purpose,
        instruction=body.instruction,
        sent_as=({"input_type": "prompt_name"} if body.prompt_name is not None else {})
        | {ours: name for ours, (name, _) in foreign.items()},
    )


def model_of(path_model: str | None, sent: str | None, default_model: str | None) -> str:
    """The model of the path, else of the body, else the default one. Raises MissingParameter."""
    if model := path_model or sent or default_model:
        return model
    raise MissingParameter("model")


def purpose_of(input_type: str | None, prompt_name: str | None) -> str | None:
    """The one of two synonyms that was sent. Raises InvalidValue for both."""
    if input_type is not None and prompt_name is not None:
        raise InvalidValue("Invalid value for 'prompt_name': 'input_type' says the same; send one of them.", param="prompt_name")
    return prompt_name if input_type is None else input_type


def honour(asked: dict[str, tuple[str, Any]], body: EmbeddingsBody) -> None:
    """Fills our fields from foreign ones. Raises InvalidValue if one of our own asks for something else."""
    for ours, (foreign, value) in asked.items():
        for own in OWN_FIELDS[ours]:
            if (said := getattr(body, own)) is not None:
                refuse_second((own, said), foreign, value)
        if ours in OWN_FIELDS[ours]:
            setattr(body, ours, value)
    if "input_type" in asked:
        body.prompt_name = None  # it says the same


def parse(sent: bytes) -> EmbeddingsBody:
    return parse_body(sent, _decode_body, _wrong_field)


def _decode_body(raw: bytes) -> EmbeddingsBody:
    refuse_too_many(raw, MAX_INPUTS)
    return decode_integers(raw, decoder, INTEGERS)


def _wrong_field(error: msgspec.ValidationError) -> ClientError:
    if "unknown field" in str(error):  # only objects in `input` refuse them
        return InvalidValue("Invalid value for 'input': an object has 'text' alone, since this server embeds text.", param="input")
    is_above = ">=" not in str(error)
    return wrong_field(error, EXPECTED, {**ALLOWED, "dimensions": ALLOWED["dimensions above" if is_above else "dimensions"]})


def has_ids(sent: Sent) -> bool:
    return not isinstance(sent, str) and bool(sent) and isinstance(sent[0], int | list)


def is_one_input(sent: Sent) -> bool:
    return isinstance(sent, str) or (bool(sent) and type(sent[0]) is int)


def one_shape(sent: Sent) -> list[str]:
    """All forms of `input` as a list of texts, each of at least one character. Raises a ClientError for any other form."""
    if isinstance(sent, str):
        return _checked_texts([sent], is_array=False)
    kinds = set(map(type, sent))
    if not kinds:
        raise EmptyInput("Invalid 'input': the array must not be empty.", param="input")
    if len(kinds) > 1:
        raise InvalidType(f"Invalid type for 'input': expected {EXPECTED['input']}, not a mixture of them.", param="input")
    if kinds == {int}:
        return texts_of([cast("list[int]", sent)], is_array=False)
    if len(sent) > MAX_INPUTS:
        raise TooManyInputs(len(sent), MAX_INPUTS)
    if kinds == {list}:
        return texts_of(cast("list[list[int]]", sent), is_array=True)
    if kinds == {TextObject}:
        return _checked_texts([each.text for each in cast("list[TextObject]", sent)], is_array=True)
    return _checked_texts(cast("list[str]", sent), is_array=True)


def _checked_texts(texts: list[str], *, is_array: bool) -> list[str]:
    if not all(texts):
        where = f"input[{texts.index('')}]" if is_array else "input"
        raise EmptyInput(f"Invalid '{where}': input cannot be an empty string.", param="input")
    return texts
