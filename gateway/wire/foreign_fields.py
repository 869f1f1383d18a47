"""Fields of other servers' embeddings APIs. Those that change a vector or its bytes are honoured or refused, never ignored.

Sources: the API references of TEI (`truncate`, `truncation_direction`), Cohere and NVIDIA NIM (`truncate` as a word, `modality`,
`embedding_type(s)`), Voyage and Mistral (`output_dimension`, `truncation`), Jina (`task`, `normalized`, `late_chunking`; LlamaIndex
writes `encoding_type`), Gemini (`task_type`), DashScope (`text_type`), vLLM (`truncate_prompt_tokens`, `embed_dtype`,
`endianness`, `messages`, `add_special_tokens`, `use_activation`) and llama.cpp (`embd_normalize`).
"""

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from gateway.errors import InvalidValue

MAX_VALUE_BYTES = 64 * 1024  # we honour no value that long, so it is not parsed

GEMINI_WORDS = {"RETRIEVAL_QUERY": "query", "RETRIEVAL_DOCUMENT": "document"}

EMBEDDING_TYPES = ("float", "int8", "uint8", "binary", "ubinary")  # Cohere's words, and Jina's, for what we call by the same

Translate = Callable[[Any], "dict[str, Any] | None"]

BOOLEAN = {"type": ["boolean", "null"]}
COUNT = {"type": ["integer", "null"], "minimum": 1}
WORD = {"type": ["string", "null"], "minLength": 1}


def values(*known: Any) -> dict[str, Any]:
    return {"enum": [*known, None]}


def words(*known: str) -> dict[str, Any]:
    lists = [{"type": "array", "items": {"enum": [word]}, "minItems": 1} for word in known]
    return {"anyOf": [values(*known), *lists]}


class ForeignFields(Struct, kw_only=True):
    """The values as raw JSON from the body, so that refused ones cost no objects."""

    truncate: Annotated[
        Raw | UnsetType,
        Meta(
            description="TEI's, Cohere's and NIM's long_input: true and END are end, false and NONE are error.",
            extra_json_schema=values(True, False, "END", "NONE"),
        ),
    ] = UNSET
    truncation: Annotated[
        Raw | UnsetType, Meta(description="Voyage's long_input: true is end, false is error.", extra_json_schema=BOOLEAN)
    ] = UNSET
    truncate_prompt_tokens: Annotated[
        Raw | UnsetType,
        Meta(
            description="vLLM's long_input: end, for -1 or the number of tokens that the model reads.",
            extra_json_schema={"anyOf": [COUNT, values(-1)]},
        ),
    ] = UNSET
    truncation_direction: Annotated[
        Raw | UnsetType,
        Meta(description="TEI's: long texts are cut at their end alone.", extra_json_schema=values("right", "Right")),
    ] = UNSET
    truncation_side: Annotated[
        Raw | UnsetType, Meta(description="vLLM's: long texts are cut at their end alone.", extra_json_schema=values("right"))
    ] = UNSET
    output_dimension: Annotated[
        Raw | UnsetType, Meta(description="Cohere's, Mistral's and Voyage's dimensions.", extra_json_schema=COUNT)
    ] = UNSET
    output_dimensionality: Annotated[Raw | UnsetType, Meta(description="Gemini's dimensions.", extra_json_schema=COUNT)] = UNSET
    task: Annotated[Raw | UnsetType, Meta(description="Jina's input_type.", extra_json_schema=WORD)] = UNSET
    task_type: Annotated[Raw | UnsetType, Meta(description="Gemini's input_type.", extra_json_schema=WORD)] = UNSET
    text_type: Annotated[Raw | UnsetType, Meta(description="DashScope's input_type.", extra_json_schema=WORD)] = UNSET
    normalized: Annotated[Raw | UnsetType, Meta(description="Jina's normalize.", extra_json_schema=BOOLEAN)] = UNSET
    use_activation: Annotated[Raw | UnsetType, Meta(description="vLLM's normalize.", extra_json_schema=BOOLEAN)] = UNSET
    embd_normalize: Annotated[
        Raw | UnsetType, Meta(description="llama.cpp's normalize: 2 is true, -1 is false.", extra_json_schema=values(2, -1))
    ] = UNSET
    embed_dtype: Annotated[
        Raw | UnsetType,
        Meta(
            description="vLLM's output_dtype: float32 is float, float16 is itself.", extra_json_schema=values("float32", "float16")
        ),
    ] = UNSET
    endianness: Annotated[
        Raw | UnsetType, Meta(description="vLLM's: base64 is little-endian alone.", extra_json_schema=values("little", "native"))
    ] = UNSET
    embedding_type: Annotated[
        Raw | UnsetType,
        Meta(
            description="Jina's output_dtype, and, for base64, encoding_format.",
            extra_json_schema=values("base64", *EMBEDDING_TYPES),
        ),
    ] = UNSET
    encoding_type: Annotated[
        Raw | UnsetType,
        Meta(description="LlamaIndex's name of Jina's embedding_type.", extra_json_schema=values("base64", *EMBEDDING_TYPES)),
    ] = UNSET
    embedding_types: Annotated[
        Raw | UnsetType,
        Meta(
            description="Cohere's output_dtype, one here, and, for base64, encoding_format.",
            extra_json_schema=words("base64", *EMBEDDING_TYPES),
        ),
    ] = UNSET
    modality: Annotated[Raw | UnsetType, Meta(description="NIM's and infinity's: text alone.", extra_json_schema=words("text"))] = (
        UNSET
    )
    messages: Annotated[Raw | UnsetType, Meta(description="vLLM's: inputs stand in input alone.", extra_json_schema=values())] = (
        UNSET
    )
    add_special_tokens: Annotated[
        Raw | UnsetType, Meta(description="vLLM's: the model's special tokens are always added.", extra_json_schema=values(True))
    ] = UNSET
    late_chunking: Annotated[
        Raw | UnsetType, Meta(description="Jina's: each input is embedded by itself.", extra_json_schema=values(False))
    ] = UNSET
    return_multivector: Annotated[
        Raw | UnsetType, Meta(description="Jina's: one vector an input.", extra_json_schema=values(False))
    ] = UNSET


def translate(body: ForeignFields) -> dict[str, tuple[str, Any]]:
    """Translates the body's foreign fields to ours: the name of our field -> (the foreign field's name, the value).

    Raises InvalidValue if a value asks for something that this server does not do, or if two fields contradict each other.
    """
    sent = sent_values(body)
    return {} if sent == NOTHING_SENT else translate_values(FIELDS, sent)  # nearly every request: half a microsecond


def translate_values(fields: Mapping[str, tuple[Translate, str]], sent: Iterable[Raw | UnsetType]) -> dict[str, tuple[str, Any]]:
    """As `translate`, of these fields: `sent` has the value of each, in their order."""
    asked: dict[str, tuple[str, Any]] = {}
    for (name, (translated, supported)), raw in zip(fields.items(), sent, strict=True):
        if raw is UNSET or bytes(raw) == b"null":
            continue
        ours = translated(value_of(raw))
        if ours is None:
            raise InvalidValue(f"Invalid value for '{name}': {supported}", param=name)
        for field, value in ours.items():
            refuse_second(asked.get(field), name, value)
            asked[field] = name, value
    return asked


def refuse_second(first: tuple[str, Any] | None, name: str, value: Any) -> None:
    """Raises InvalidValue if another field has already asked for a different value."""
    if first is not None and first[1] != value:
        raise InvalidValue(f"Invalid value for '{name}': '{first[0]}' asks for something else; send one of them.", param=name)


def value_of(raw: Raw) -> Any:
    """The parsed value. 2.0 becomes an integer, as in JSON Schema; a very long value, and 1e400, become an object that equals
    nothing."""
    try:
        value = msgspec.json.decode(raw) if memoryview(raw).nbytes <= MAX_VALUE_BYTES else object()
    except msgspec.ValidationError:  # the JSON is valid, and holds a number that no float holds
        value = object()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def one_of(known: dict[Any, dict[str, Any]]) -> Translate:
    """Accepts exactly these values: 1 is not true."""

    def chosen(value: Any) -> dict[str, Any] | None:
        return next((ours for each, ours in known.items() if type(each) is type(value) and each == value), None)

    return chosen


def every(known: dict[str, dict[str, Any]]) -> Translate:
    """Accepts one of these words, or a list that contains only that one."""
    of_one = one_of(known)

    def chosen(value: Any) -> dict[str, Any] | None:
        sent = value if isinstance(value, list) else [value]
        return of_one(sent[0]) if sent and all(each == sent[0] for each in sent) else None

    return chosen


def positive(field: str) -> Translate:
    def chosen(value: Any) -> dict[str, Any] | None:
        return {field: value} if type(value) is int and value >= 1 else None

    return chosen


def cut(value: Any) -> dict[str, Any] | None:
    """`-1` means the model's own length. Another number is compared with that once the model is known."""
    if value == -1 and type(value) is int:
        return {"long_input": "end"}
    number = positive("max_tokens")(value)
    return number and {"long_input": "end", **number}


def purpose(value: Any) -> dict[str, Any] | None:
    return {"input_type": value} if isinstance(value, str) and value else None


def task_type(value: Any) -> dict[str, Any] | None:
    """Translates Gemini's words: it writes RETRIEVAL_QUERY for Jina's retrieval.query."""
    return purpose(GEMINI_WORDS.get(value, value)) if isinstance(value, str) else None


def nothing(_: Any) -> None:
    return None


END, ERROR = {"long_input": "end"}, {"long_input": "error"}
NORMALIZE, RAW_VECTOR = {"normalize": True}, {"normalize": False}
TEXT_ONLY = "this server embeds text alone."
BASE64_OR_DTYPE: dict[str, dict[str, Any]] = {
    "base64": {"encoding_format": "base64", "output_dtype": "float"},
    **{name: {"output_dtype": name} for name in EMBEDDING_TYPES},
}
SUPPORTED_TYPES = f"supported are {', '.join(map(repr, BASE64_OR_DTYPE))}"

FIELDS: dict[str, tuple[Translate, str]] = {
    "truncate": (
        one_of({True: END, False: ERROR, "END": END, "NONE": ERROR}),
        "supported are true, false, 'END' and 'NONE': long texts are cut at their end, or refused.",
    ),
    "truncation": (one_of({True: END, False: ERROR}), "expected a boolean."),
    "truncate_prompt_tokens": (cut, "expected a positive integer, or -1 for as many tokens as the model reads."),
    "truncation_direction": (one_of({"right": {}, "Right": {}}), "long texts are cut at their end alone ('right')."),
    "truncation_side": (one_of({"right": {}}), "long texts are cut at their end alone ('right')."),
    "output_dimension": (positive("dimensions"), "expected a positive integer."),
    "output_dimensionality": (positive("dimensions"), "expected a positive integer."),
    "task": (purpose, "expected the name of one of the model's prompts."),
    "task_type": (task_type, "expected the name of one of the model's prompts."),
    "text_type": (purpose, "expected the name of one of the model's prompts."),
    "normalized": (one_of({True: NORMALIZE, False: RAW_VECTOR}), "expected a boolean."),
    "use_activation": (one_of({True: NORMALIZE, False: RAW_VECTOR}), "expected a boolean."),
    "embd_normalize": (one_of({2: NORMALIZE, -1: RAW_VECTOR}), "supported are 2 (length 1) and -1 (as the model gives it)."),
    "embed_dtype": (
        one_of({"float32": {"output_dtype": "float"}, "float16": {"output_dtype": "float16"}}),
        "supported are 'float32' and 'float16'.",
    ),
    "endianness": (one_of({"little": {}, "native": {}}), "this server gives 'little' alone."),
    "embedding_type": (one_of(BASE64_OR_DTYPE), f"{SUPPORTED_TYPES}."),
    "encoding_type": (one_of(BASE64_OR_DTYPE), f"{SUPPORTED_TYPES}."),
    "embedding_types": (every(BASE64_OR_DTYPE), f"{SUPPORTED_TYPES}, one of them: a reply has one vector a text."),
    "modality": (every({"text": {}}), TEXT_ONLY),
    "messages": (nothing, "this server embeds 'input' alone."),
    "add_special_tokens": (one_of({True: {}}), "this server always adds the model's special tokens."),
    "late_chunking": (one_of({False: {}}), "this server embeds each input by itself."),
    "return_multivector": (one_of({False: {}}), "this server gives one vector an input."),
}

sent_values = attrgetter(*FIELDS)
NOTHING_SENT = sent_values(ForeignFields())
