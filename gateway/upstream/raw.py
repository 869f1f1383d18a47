"""Where vectors are had that were not made length 1: at the server's own door, where its OpenAI door gives unit vectors only.

    llama.cpp   /embedding with `embd_normalize: -1`, tools/server of ggml-org/llama.cpp
    TEI         /embed with `normalize: false`
    a gateway   the same door, with `normalize: false`

A door is believed once it gave the direction that the known door gives. It is no fault of a door that its vectors have length 1:
some models end with a Normalize of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.upstream import tei
from gateway.upstream.dialect import Headers, UpstreamQuery
from gateway.upstream.validation import InvalidResponse, ParsedResponse, parse


class LlamaItem(msgspec.Struct):
    """`embedding` has a row a text; without pooling it has one a token, and is no vector of the text."""

    embedding: list[list[float | None]]
    index: int | None = None


LlamaReply = list[LlamaItem]
LLAMA_DECODER = msgspec.json.Decoder(LlamaReply)


def llama_body(ask: UpstreamQuery) -> dict[str, Any]:
    return {"content": ask.texts, "embd_normalize": -1}


def llama_read(content: bytes, headers: Headers) -> ParsedResponse:  # noqa: ARG001 - as TEI's
    items: LlamaReply = parse(content, LLAMA_DECODER, LlamaReply)
    if any(len(item.embedding) != 1 for item in items):
        raise InvalidResponse("it gave a vector for each token, and none for the text")
    return ParsedResponse([item.embedding[0] for item in items], [item.index for item in items])


@dataclass(frozen=True, slots=True)
class Door:
    """`path` is beside /v1; None is the door that is known anyway."""

    name: str
    path: str | None = None
    body: Callable[[UpstreamQuery], dict[str, Any]] | None = None
    read: Callable[[bytes, Headers], ParsedResponse] | None = None


SAME = Door("same")
OWN = (Door("llama.cpp", "/embedding", llama_body, llama_read), Door("tei", "/embed", tei.body, tei.read))
