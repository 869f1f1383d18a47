"""Ollama's native /api/embed, by server/routes.go and docs/api.md of ollama/ollama.

Its vectors always have length 1. Without `truncate: false` it silently truncates long texts.
"""

from typing import Any

import msgspec

from gateway.upstream.dialect import Dialect, Headers, UpstreamLimits, UpstreamQuery
from gateway.upstream.openai import whole
from gateway.upstream.settings import RULES
from gateway.upstream.validation import InvalidResponse, ParsedResponse, parse


class OllamaReply(msgspec.Struct):
    embeddings: list[list[float | None] | None]
    prompt_eval_count: Any = None


DECODER = msgspec.json.Decoder(OllamaReply)


def body(ask: UpstreamQuery) -> dict[str, Any]:
    content: dict[str, Any] = {"model": ask.model, "input": ask.texts, "truncate": ask.rule == "end"}
    if ask.settings.dimensions is not None:
        content["dimensions"] = ask.settings.dimensions
    if ask.settings.keep_alive is not None:
        content["keep_alive"] = ask.settings.keep_alive
    return content


def read(content: bytes, headers: Headers) -> ParsedResponse:  # noqa: ARG001 - only TEI's protocol needs headers
    reply = parse(content, DECODER, OllamaReply)
    return ParsedResponse(list(reply.embeddings), None, whole(reply.prompt_eval_count))


class Tag(msgspec.Struct):
    """A pulled model. Its digest is that of its manifest, so it covers weights, template and parameters.

    Another gateway's door gives that of its fingerprint, and zeros while the model is not loaded there.
    """

    name: str = ""
    model: str = ""
    digest: str = ""


class Tags(msgspec.Struct):
    models: list[Tag] | None = None


def _read_tags(content: bytes, model: str) -> UpstreamLimits:
    """Reads /api/tags. A name without a tag means the tag `latest`, as in types/model/name.go."""
    try:
        tags = msgspec.json.decode(content, type=Tags).models or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidResponse("its /api/tags is not what this protocol says") from None
    names = {model, f"{model}:latest"}
    digest = next((tag.digest for tag in tags if names & {tag.name, tag.model}), "")
    return UpstreamLimits(identity=digest if digest.strip("0") else "")


OLLAMA = Dialect(
    "ollama", "/api/embed", body, read, rules=RULES["ollama"], max_inputs=512, remedy="`ollama pull {model}` there mends it",
    info_path="/api/tags", read_info=_read_tags, is_unit=True,
)  # fmt: skip
