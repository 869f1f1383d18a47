"""OpenAI's own protocol, spoken by Azure, vLLM, infinity, llama.cpp, LM Studio, LocalAI, TEI under /v1, and other gateways."""

from typing import Any

import msgspec

from gateway.upstream.dialect import Ask, Dialect, Headers
from gateway.upstream.reading import Reading, parsed
from gateway.upstream.settings import RULES

Vector = bytes | list[float | None] | None


class Item(msgspec.Struct):
    embedding: Vector
    index: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: Any = None
    total_tokens: Any = None


class Reply(msgspec.Struct):
    data: list[Item]
    usage: Usage | None = None


DECODER = msgspec.json.Decoder(Reply)


def body(ask: Ask) -> dict[str, Any]:
    content: dict[str, Any] = {**ask.settings.extra_body, "model": ask.model, "input": ask.texts}
    if ask.as_base64:
        content["encoding_format"] = "base64"
    if ask.settings.dimensions is not None:
        content["dimensions"] = ask.settings.dimensions
    return content


def read(content: bytes, headers: Headers) -> Reading:  # noqa: ARG001 - TEI's own protocol counts tokens in a header
    reply = parsed(content, DECODER, Reply)
    usage = reply.usage or Usage()
    return Reading(
        [item.embedding for item in reply.data],
        [item.index for item in reply.data],
        whole(usage.prompt_tokens) or whole(usage.total_tokens),
    )


def whole(value: Any) -> int | None:
    """A number of tokens, where it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


OPENAI = Dialect("openai", "/embeddings", body, read, rules=RULES["openai"], max_inputs=2048, knows_base64=True)
