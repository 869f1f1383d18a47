"""The native protocol of text-embeddings-inference, by router/src/http/server.rs: /embed, /rerank, and /info for its limits.

A reply has its token count in the header x-compute-tokens.
"""

import re
from functools import partial
from typing import Any

import msgspec

from gateway.embedding.embedder import ModelKind
from gateway.upstream.dialect import Dialect, Headers, UpstreamLimits, UpstreamQuery
from gateway.upstream.settings import RULES
from gateway.upstream.validation import InvalidResponse, ParsedResponse, parse

TOKENS_HEADER = "x-compute-tokens"
# Of ModelType in router/src/lib.rs, by our words for the kind; the third is a classifier.
MODEL_TYPES: dict[ModelKind, str] = {"embedder": "embedding", "reranker": "reranker"}


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
    vectors: Vectors = parse(content, DECODER, Vectors)
    return ParsedResponse(list(vectors), None, _tokens_of(headers))


def _tokens_of(headers: Headers) -> int | None:
    reported = re.fullmatch(r"[0-9]{1,9}", headers.get(TOKENS_HEADER, ""))
    return int(reported[0]) if reported else None


class Rank(msgspec.Struct):
    score: float | None
    index: int


Ranks = list[Rank]
RANKS_DECODER = msgspec.json.Decoder(Ranks)


def _rerank_body(ask: UpstreamQuery) -> dict[str, Any]:
    return {"query": ask.query, "texts": ask.texts, "raw_scores": True, "truncate": ask.rule == "end"}


def _read_ranks(content: bytes, headers: Headers) -> ParsedResponse:
    ranks: Ranks = parse(content, RANKS_DECODER, Ranks)
    return ParsedResponse([rank.score for rank in ranks], [rank.index for rank in ranks], _tokens_of(headers))


def read_info(content: bytes, model: str = "", *, kind: ModelKind = "embedder") -> UpstreamLimits:  # noqa: ARG001 - it has one model
    try:
        info = msgspec.json.decode(content, type=Info)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidResponse("its /info is not what this protocol says") from None
    if isinstance(info.model_type, dict) and MODEL_TYPES[kind] not in info.model_type:
        raise InvalidResponse(f"by its /info the model there is no {kind}")
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
TEI_RERANK = Dialect(
    "tei", "/rerank", _rerank_body, _read_ranks, rules=RULES["tei"], max_inputs=32, kind="reranker", info_path="/info",
    read_info=partial(read_info, kind="reranker"), requires_info=True, honours_normalize=True,
)  # fmt: skip
