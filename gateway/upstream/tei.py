"""The native protocol of text-embeddings-inference, by router/src/http/server.rs: /embed, and /info for its limits.

A reply has its token count in the header x-compute-tokens.
"""

import re
from typing import Any

import msgspec

from gateway.upstream.dialect import Dialect, Headers, UpstreamLimits, UpstreamQuery
from gateway.upstream.settings import RULES
from gateway.upstream.validation import InvalidResponse, ParsedResponse, parse

TOKENS_HEADER = "x-compute-tokens"
EMBEDDER = "embedding"  # of ModelType in router/src/lib.rs; the others are a reranker and a classifier


class Info(msgspec.Struct):
    max_client_batch_size: int | None = None
    max_input_length: int | None = None
    model_id: str = ""
    model_sha: str | None = None
    model_dtype: str = ""
    model_type: Any = None


Vectors = list[list[float | None] | None]
DECODER = msgspec.json.Decoder(Vectors)


def body(ask: UpstreamQuery) -> dict[str, Any]:
    content: dict[str, Any] = {"inputs": ask.texts, "normalize": ask.normalize, "truncate": ask.rule == "end"}
    if ask.settings.dimensions is not None:
        content["dimensions"] = ask.settings.dimensions
    return content


def read(content: bytes, headers: Headers) -> ParsedResponse:
    reported = re.fullmatch(r"[0-9]{1,9}", headers.get(TOKENS_HEADER, ""))
    vectors: Vectors = parse(content, DECODER, Vectors)
    return ParsedResponse(list(vectors), None, int(reported[0]) if reported else None)


def read_info(content: bytes, model: str = "") -> UpstreamLimits:  # noqa: ARG001 - the server has one model
    try:
        info = msgspec.json.decode(content, type=Info)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidResponse("its /info is not what this protocol says") from None
    if isinstance(info.model_type, dict) and EMBEDDER not in info.model_type:
        raise InvalidResponse("by its /info the model there is no embedder")
    identity = "\0".join((info.model_id, info.model_sha or "", info.model_dtype))
    return UpstreamLimits(
        positive(info.max_client_batch_size), positive(info.max_input_length), identity if identity.strip("\0") else ""
    )


def positive(number: int | None) -> int | None:
    return number if number is not None and number > 0 else None


TEI = Dialect(
    "tei", "/embed", body, read, rules=RULES["tei"], max_inputs=32, info_path="/info", read_info=read_info, requires_info=True,
    honours_normalize=True,
)  # fmt: skip
