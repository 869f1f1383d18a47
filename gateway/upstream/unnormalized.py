"""The native APIs that give unnormalised vectors, for servers whose OpenAI API gives only unit vectors.

    llama.cpp   /embedding with `embd_normalize: -1`, tools/server of ggml-org/llama.cpp
    TEI         /embed with `normalize: false`
    a gateway   the same API, with `normalize: false`

An API is trusted once it gave the same direction as the API already known. Its vectors may still have length 1: some models end
with a Normalize of their own.
"""

from typing import Any

import msgspec

from gateway.upstream import tei
from gateway.upstream.dialect import Headers, ServerApi, UpstreamQuery
from gateway.upstream.validation import InvalidResponse, ParsedResponse, parse


class LlamaItem(msgspec.Struct):
    """`embedding` has one row for the text. Without pooling it has one for each token, and is no vector of the text."""

    embedding: list[list[float | None]]
    index: int | None = None


LlamaReply = list[LlamaItem]
LLAMA_DECODER = msgspec.json.Decoder(LlamaReply)


def _llama_body(ask: UpstreamQuery) -> dict[str, Any]:
    return {"content": ask.texts, "embd_normalize": -1}


def _llama_read(content: bytes, headers: Headers) -> ParsedResponse:  # noqa: ARG001 - only TEI's protocol needs headers
    items: LlamaReply = parse(content, LLAMA_DECODER, LlamaReply)
    if any(len(item.embedding) != 1 for item in items):
        raise InvalidResponse("it gave a vector for each token, and none for the text")
    return ParsedResponse([item.embedding[0] for item in items], [item.index for item in items])


OWN = (ServerApi("llama.cpp", "/embedding", _llama_body, _llama_read), ServerApi("tei", "/embed", tei.body, tei.read))
