"""The protocols of rerankers: a query and documents, and a score for each document, sorted by score.

    rerank      Jina, vLLM, infinity, llama.cpp, SiliconFlow, Together, LiteLLM, another gateway
    cohere      Cohere's /v2/rerank, which refuses any field that it does not know (HKUDS/LightRAG#1813)
    voyage      its `top_k` and `data`: docs.voyageai.com/reference/reranker-api
    reranks     DashScope's, cohere's at /reranks: www.alibabacloud.com/help/en/model-studio/rerank
    nim         NVIDIA's /ranking, /reranking where it is hosted: docs.nvidia.com/nim/nemo-retriever/text-reranking
    mixedbread  its /reranking: mixedbread.com/api-reference/endpoints/reranking

All are asked for the scores of all documents, as some give only the best without that. `rerank_api` finds out which of them a
server speaks, and whether its scores are logits.
"""

from typing import Any

import msgspec

from gateway.upstream.dialect import Dialect, Headers, ServerApi, UpstreamQuery
from gateway.upstream.openai import OPENAI, whole
from gateway.upstream.settings import RULES
from gateway.upstream.validation import InvalidResponse, ParsedResponse, parse

MAX_DOCUMENTS = 1000  # Voyage's limit; Cohere takes 10,000, the others have none of their own


class RerankItem(msgspec.Struct):
    """A document's score. `index` is None if it is 0: Protobuf's JSON leaves that out."""

    relevance_score: float | None
    index: int | None = None


class RerankReply(msgspec.Struct):
    """`data` is Voyage's word for `results`."""

    results: list[RerankItem] | None = None
    data: list[RerankItem] | None = None
    usage: Any = None
    meta: Any = None


class LogitItem(msgspec.Struct):
    logit: float | None
    index: int


class RankingReply(msgspec.Struct):
    rankings: list[LogitItem]
    usage: Any = None


class ScoreItem(msgspec.Struct):
    score: float | None
    index: int


class RerankingReply(msgspec.Struct):
    data: list[ScoreItem]
    usage: Any = None


DECODER = msgspec.json.Decoder(RerankReply)
RANKING_DECODER = msgspec.json.Decoder(RankingReply)
RERANKING_DECODER = msgspec.json.Decoder(RerankingReply)


def _body(ask: UpstreamQuery) -> dict[str, Any]:
    """Jina and vLLM repeat every document in a reply; `return_documents` stops Jina."""
    return {**_cohere_body(ask), "return_documents": False}


def _cohere_body(ask: UpstreamQuery) -> dict[str, Any]:
    return {**_own_fields(ask), "top_n": len(ask.texts)}


def _voyage_body(ask: UpstreamQuery) -> dict[str, Any]:
    return {**_own_fields(ask), "top_k": len(ask.texts)}


def _own_fields(ask: UpstreamQuery) -> dict[str, Any]:
    return {**ask.settings.extra_body, "model": ask.model, "query": ask.query, "documents": ask.texts}


def _nim_body(ask: UpstreamQuery) -> dict[str, Any]:
    """With `truncate` NONE NIM refuses a pair that is too long; its default depends on the model."""
    passages = [{"text": text} for text in ask.texts]
    own = {"model": ask.model, "query": {"text": ask.query}, "passages": passages}
    return {"truncate": "NONE", **ask.settings.extra_body, **own}


def _mixedbread_body(ask: UpstreamQuery) -> dict[str, Any]:
    own = {"model": ask.model, "query": ask.query, "input": ask.texts, "top_k": len(ask.texts), "return_input": False}
    return {**ask.settings.extra_body, **own}


def _read(content: bytes, headers: Headers) -> ParsedResponse:  # noqa: ARG001 - TEI's own protocol counts tokens in a header
    reply = parse(content, DECODER, RerankReply)
    items = reply.results if reply.results is not None else reply.data
    if items is None:
        raise InvalidResponse("its reply is not what this protocol says")
    return ParsedResponse(
        [item.relevance_score for item in items], [item.index for item in items], _tokens_of(reply.usage, reply.meta)
    )


def _read_rankings(content: bytes, headers: Headers) -> ParsedResponse:  # noqa: ARG001
    reply = parse(content, RANKING_DECODER, RankingReply)
    items = reply.rankings
    return ParsedResponse([item.logit for item in items], [item.index for item in items], _tokens_of(reply.usage, None))


def _read_reranking(content: bytes, headers: Headers) -> ParsedResponse:  # noqa: ARG001
    reply = parse(content, RERANKING_DECODER, RerankingReply)
    return ParsedResponse([item.score for item in reply.data], [item.index for item in reply.data], _tokens_of(reply.usage, None))


def _tokens_of(usage: Any, meta: Any) -> int | None:
    """`usage.total_tokens` of most, `meta.tokens.input_tokens` of Cohere and LiteLLM."""
    counts = usage if isinstance(usage, dict) else {}
    tokens = meta.get("tokens") if isinstance(meta, dict) else None
    counted = tokens.get("input_tokens") if isinstance(tokens, dict) else None
    return whole(counts.get("total_tokens")) or whole(counts.get("prompt_tokens")) or whole(counted)


APIS = (
    ServerApi("rerank", body=_body),
    ServerApi("cohere", body=_cohere_body),
    ServerApi("voyage", body=_voyage_body),
    ServerApi("reranks", "/reranks", _cohere_body, is_at_root=False),
    ServerApi("nim", "/ranking", _nim_body, _read_rankings, is_at_root=False),
    ServerApi("nim, hosted", "/reranking", _nim_body, _read_rankings, is_at_root=False),
    ServerApi("mixedbread", "/reranking", _mixedbread_body, _read_reranking, is_at_root=False),
)
RERANK = Dialect(
    "openai", "/rerank", _body, _read, rules=RULES["openai"], max_inputs=MAX_DOCUMENTS, kind="reranker", apis=APIS,
    info_path=OPENAI.info_path, read_info=OPENAI.read_info, honours_normalize=True,
)  # fmt: skip
