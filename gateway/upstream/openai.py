"""OpenAI's protocol, also spoken by Azure, vLLM, infinity, llama.cpp, LM Studio, LocalAI, TEI under /v1, and other gateways."""

from typing import Any

import msgspec

from gateway.upstream.dialect import Dialect, Headers, UpstreamLimits, UpstreamQuery
from gateway.upstream.settings import RULES
from gateway.upstream.validation import InvalidResponse, ParsedResponse, parse

Vector = bytes | list[float | None] | None


class Item(msgspec.Struct):
    """Protobuf's JSON leaves out an `index` of 0, a count of 0, a list without items and an empty string."""

    embedding: Vector = None
    index: int | None = None


class OpenAIUsage(msgspec.Struct):
    prompt_tokens: Any = None
    total_tokens: Any = None


class OpenAIReply(msgspec.Struct):
    data: list[Item]
    usage: OpenAIUsage | None = None


DECODER = msgspec.json.Decoder(OpenAIReply)


def body(ask: UpstreamQuery) -> dict[str, Any]:
    purpose = ask.settings.input_types.get(ask.input_type, {})
    content: dict[str, Any] = {**ask.settings.extra_body, **purpose, "model": ask.model, "input": ask.texts}
    if ask.as_base64:
        content["encoding_format"] = "base64"
    if not ask.normalize and ask.knows_normalize:
        content["normalize"] = False
    if ask.settings.dimensions is not None:
        content["dimensions"] = ask.settings.dimensions
    return content


def read(content: bytes, headers: Headers) -> ParsedResponse:  # noqa: ARG001 - TEI's own protocol counts tokens in a header
    reply = parse(content, DECODER, OpenAIReply)
    usage = reply.usage or OpenAIUsage()
    return ParsedResponse(
        [item.embedding for item in reply.data],
        [item.index for item in reply.data],
        whole(usage.prompt_tokens) or whole(usage.total_tokens),
    )


def whole(value: Any) -> int | None:
    """A number of tokens. Returns None if it is not a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class OpenAIEntry(msgspec.Struct):
    """The constant part of an entry of /models. `created` is left out: llama.cpp and vLLM put the time of the reply there.

    `meta` is llama.cpp's, `root` and `parent` vLLM's, `fingerprint` another gateway's.
    """

    id: str = ""
    aliases: Any = None
    root: Any = None
    parent: Any = None
    fingerprint: Any = None
    meta: Any = None


class Entries(msgspec.Struct):
    data: list[OpenAIEntry]


WEIGHT_FIELDS = ("n_vocab", "n_ctx_train", "n_embd", "n_params", "size", "ftype")  # of `meta`; not n_ctx, a flag of the server


def _read_models(content: bytes, model: str) -> UpstreamLimits:
    """Reads the model's own entry, or the only one: llama.cpp serves one model, whatever name a request has."""
    try:
        entries = msgspec.json.decode(content, type=Entries).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidResponse("its /models is not what this protocol says") from None
    own = [entry for entry in entries if entry.id == model] or (entries if len(entries) == 1 else [])
    if not own:
        return UpstreamLimits()
    entry = own[0]
    meta = entry.meta if isinstance(entry.meta, dict) else {}
    parts = [entry.root, entry.parent, entry.fingerprint, *(meta.get(name) for name in WEIGHT_FIELDS)]
    words = [part if isinstance(part, str | int | float) else None for part in parts]
    return UpstreamLimits(
        identity=msgspec.json.encode([entry.id, *words]).decode() if any(part is not None for part in words) else ""
    )


OPENAI = Dialect(
    "openai", "/embeddings", body, read, rules=RULES["openai"], max_inputs=2048, knows_base64=True,
    info_path="/models", read_info=_read_models,
)  # fmt: skip
