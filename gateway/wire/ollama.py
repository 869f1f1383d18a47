"""Ollama's API: bodies to requests of ours, vectors to replies. Source: server/routes.go and api/types.go of ollama/ollama, 0.33.

`input` and `prompt` may be missing or empty: such a request only loads the model. Most `options` concern how a model is run; only
`num_ctx` can change a vector. `keep_alive` is checked and does nothing, as models here stay loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from gateway.config import LongInput
from gateway.errors import InvalidType, InvalidValue, MissingParameter, TooManyInputs
from gateway.wire.input_count import refuse_too_many
from gateway.wire.json_body import parse_body, without_byte_order_mark
from gateway.wire.request import EmbeddingsRequest, model_of

MAX_INPUTS = 8192  # Ollama has no limit, and LangChain's and Chroma's classes send all texts of a call at once
GO_DURATION = r"^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$"  # Go's time.ParseDuration
RULES: dict[bool | None, LongInput] = {None: "end", True: "end", False: "error"}  # of `truncate`; Ollama cuts by default

Count = Annotated[int, Meta(ge=0)]
BodyT = TypeVar("BodyT", bound=Struct)


class OllamaOptions(Struct, kw_only=True):
    """Options of Ollama's Modelfiles. All but this one are ignored: they change no vector."""

    num_ctx: Annotated[
        float | None, Meta(description="A number below the tokens of a text is refused: texts are cut at the model's own length.")
    ] = None


class OllamaBody(Struct, kw_only=True):
    """What both endpoints take. `null` equals absent, and unknown fields are ignored."""

    model: Annotated[str | None, Meta(description="A name, with or without :latest.")] = None
    options: OllamaOptions | None = None
    input_type: Annotated[
        str | None, Meta(description="Ours: which of the model's prompts is put before the texts, as at /v1/embeddings.")
    ] = None
    keep_alive: Annotated[
        float | Annotated[str, Meta(pattern=GO_DURATION)] | None, Meta(description="Seconds, or a duration as 5m. It does nothing.")
    ] = None


class OllamaEmbedOptions(OllamaBody, kw_only=True):
    """The body of /api/embed without its texts."""

    truncate: Annotated[
        bool | None,
        Meta(description="true, by default: longer texts are cut at their end; false: they are refused."),
    ] = None
    dimensions: Annotated[
        int | None, Meta(description="The first so many components, made length 1 again. Below 1: all of them.")
    ] = None


class OllamaEmbedBody(OllamaEmbedOptions, kw_only=True):
    """The body of /api/embed."""

    input: Annotated[str | list[str] | None, Meta(description="A text, or several. Without one the model is only loaded.")] = None


class OllamaPromptBody(OllamaBody, kw_only=True):
    """The body of /api/embeddings."""

    prompt: Annotated[str | None, Meta(description="A text. Without it the model is only loaded.")] = None


class OllamaShowBody(Struct, kw_only=True):
    """The body of /api/show; `name` is the old word for `model`."""

    model: str | None = None
    name: str | None = None


class OllamaEmbedReply(Struct, kw_only=True):
    """The reply of /api/embed. Durations are in nanoseconds; a request that only loads a model has neither them nor a count."""

    model: Annotated[str, Meta(description="The name that the client sent.")]
    embeddings: Annotated[list[list[float]], Meta(description="A vector for each text, of length 1.")]
    total_duration: Count | UnsetType = UNSET
    load_duration: Annotated[Count | UnsetType, Meta(description="Until the work on the texts began.")] = UNSET
    prompt_eval_count: Annotated[Count | UnsetType, Meta(description="Tokens by the model's own tokenizer.")] = UNSET


class OllamaVectorReply(Struct):
    """The reply of /api/embeddings."""

    embedding: Annotated[list[float], Meta(description="As the model's own modules give it.")]


@dataclass(frozen=True, slots=True)
class OllamaRequest:
    """A parsed request. Without texts it only loads the model. `num_ctx`: Ollama would cut a longer text at so many tokens."""

    asked: EmbeddingsRequest
    num_ctx: int | None


def decode_embed(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> OllamaRequest:
    """Parses a body of /api/embed. Raises a ClientError that names what is wrong, in Ollama's order and often in its words."""
    body = _parse(raw, _embed_body)
    model = model_of(path_model, body.model, default_model)
    if not isinstance(body, OllamaEmbedBody):
        raise InvalidType("invalid input type", param="input")
    texts = ([body.input] if body.input else []) if isinstance(body.input, str) else body.input or []
    if len(texts) > MAX_INPUTS:
        raise TooManyInputs(len(texts), MAX_INPUTS)
    asked = EmbeddingsRequest(
        texts,
        model,
        is_array=isinstance(body.input, list),
        dimensions=body.dimensions if body.dimensions and body.dimensions > 0 else None,
        long_input=RULES[body.truncate],
        is_default_rule=body.truncate is not False,
        input_type=body.input_type,
        sent_as={"long_input": "truncate"},
    )
    return OllamaRequest(asked, _num_ctx(body))


def decode_prompt(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> OllamaRequest:
    """Parses a body of /api/embeddings. Raises a ClientError."""
    body = _parse(raw, PROMPT.decode)
    model = model_of(path_model, body.model, default_model)
    asked = EmbeddingsRequest(
        [body.prompt] if body.prompt else [],
        model,
        is_array=False,
        normalize=False,
        input_type=body.input_type,
        sent_as={"input": "prompt"},
    )
    return OllamaRequest(asked, _num_ctx(body))


def decode_show(raw: bytes) -> str:
    """Returns the name in a body of /api/show. Raises a ClientError."""
    body = _parse(raw, SHOW.decode)
    if name := body.model or body.name:
        return name
    raise MissingParameter("model")


def encode_embed(rows: NDArray[np.float32], *, model: str, num_tokens: int, total_seconds: float, load_seconds: float) -> bytes:
    """The bytes of /api/embed's reply. `rows` has shape (n, dimensions); a float is the shortest text of its float32."""
    about = OllamaEmbedReply(
        model=model,
        embeddings=[],
        total_duration=nanoseconds(total_seconds),
        load_duration=nanoseconds(load_seconds),
        prompt_eval_count=num_tokens,
    )
    return orjson.dumps({**msgspec.to_builtins(about), "embeddings": np.ascontiguousarray(rows)}, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_prompt(row: NDArray[np.float32]) -> bytes:
    """The bytes of /api/embeddings' reply: a float32 as the text of a float64, as Go writes it."""
    return orjson.dumps({"embedding": row.astype(np.float64)}, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_loaded(model: str) -> bytes:
    """The bytes of /api/embed's reply to a request without texts."""
    return msgspec.json.encode(OllamaEmbedReply(model=model, embeddings=[]))


EMPTY_VECTOR = msgspec.json.encode(OllamaVectorReply([]))


def nanoseconds(seconds: float) -> int:
    return max(1, round(1e9 * seconds))


EMBED = msgspec.json.Decoder(OllamaEmbedBody)
EMBED_OPTIONS = msgspec.json.Decoder(OllamaEmbedOptions)
PROMPT = msgspec.json.Decoder(OllamaPromptBody)
SHOW = msgspec.json.Decoder(OllamaShowBody)


def _embed_body(raw: bytes) -> OllamaEmbedOptions:
    """The body; without its texts if they are of a wrong type, which Ollama reports after everything else that is wrong."""
    refuse_too_many(raw, MAX_INPUTS)
    try:
        return EMBED.decode(raw)
    except msgspec.ValidationError as error:
        if "`$.input" not in str(error):
            raise
    return EMBED_OPTIONS.decode(raw)


def _parse(sent: bytes, decode: Callable[[bytes], BodyT]) -> BodyT:
    content = without_byte_order_mark(sent).strip()
    if not content:
        raise MissingParameter("body")
    return parse_body(b"{}" if content == b"null" else sent, decode, _wrong_field)


def _wrong_field(error: msgspec.ValidationError) -> InvalidType:
    """msgspec's words, which name the field and the types in JSON's terms."""
    text = str(error)
    if "regex" in text:  # only a duration has one
        return InvalidType('json: expected seconds, or a duration such as "5m" - at `$.keep_alive`', param="keep_alive")
    return InvalidType(f"json: {text[:1].lower()}{text[1:]}")


def _num_ctx(body: OllamaBody) -> int | None:
    sent = body.options.num_ctx if body.options is not None else None
    return int(sent) if sent is not None and sent >= 1 else None


def refuse_small_context(num_ctx: int | None, max_tokens: int, token_counts: list[int]) -> None:
    """Raises InvalidValue if Ollama would cut a text at `num_ctx`, before the end of what the model reads."""
    longest = max(token_counts)
    if num_ctx is not None and num_ctx < min(max_tokens, longest):
        raise InvalidValue(
            f'option "num_ctx" cannot be {num_ctx} for a text of {longest} tokens: the {max_tokens} tokens that the model reads are'
            " the only length at which texts are cut",
            param="options",
        )
