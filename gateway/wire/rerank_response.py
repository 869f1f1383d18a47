"""Writes the scores of a rerank request as Cohere, Jina, vLLM, LiteLLM and infinity do: one reply that has every key of theirs."""

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from gateway.wire.rerank import RerankRequest
from gateway.wire.response import Count

BYTES_PER_RESULT = 64  # of index and score
DOCUMENTS_A_SEARCH_UNIT = 100  # Cohere's own count: a search unit is a query with up to 100 documents


class RerankResult(Struct):
    """One document's score."""

    index: Annotated[int, Meta(ge=0, description="The document's position in the request.")]
    relevance_score: Annotated[float, Meta(description="From 0 to 1; a logit with raw_scores.")]
    document: Annotated[
        dict[str, Any] | UnsetType, Meta(description="With return_documents: as it was sent; a string as an object with its text.")
    ] = UNSET


class RerankUsage(Struct):
    """Tokens of every pair of query and document by the model's own tokenizer, special tokens included."""

    prompt_tokens: Count
    total_tokens: Count


class ApiVersion(Struct):
    """Cohere's version of the path."""

    version: str


class BilledUnits(Struct):
    """Cohere's: one for each hundred documents begun."""

    search_units: Count


class RerankTokens(Struct):
    """Cohere's name of prompt_tokens."""

    input_tokens: Count


class RerankMeta(Struct):
    """Cohere's account of the request."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: RerankTokens


class RerankResponse(Struct):
    """The whole reply. Its results are the best first; of equal ones the first of the request."""

    id: Annotated[str, Meta(description="The request's id, as in x-request-id.")]
    results: Annotated[list[RerankResult], Meta(min_length=1)]
    model: Annotated[str, Meta(description="The name that the client sent.")]
    usage: RerankUsage
    meta: RerankMeta
    object: Annotated[Literal["list"] | UnsetType, Meta(description="Voyage's; if the request has top_k or truncation.")] = UNSET
    data: Annotated[list[RerankResult] | UnsetType, Meta(description="Voyage's name of results, likewise.")] = UNSET


def best_first(logits: NDArray[np.float32], top_n: int | None) -> list[int]:
    """The positions of the best `top_n`, by the logits: where sigmoids are all 1.0, these still differ. Ties by position."""
    order: list[int] = np.argsort(-logits, kind="stable")[:top_n].tolist()
    return order


def scores_of(logits: NDArray[np.float32], *, raw_scores: bool) -> NDArray[np.float32]:
    """The scores, of shape (n,), float32: logits, or their sigmoids, computed in float64. Infinity is the largest number."""
    if raw_scores:
        limits = np.finfo(np.float32)
        return np.clip(logits, limits.min, limits.max)
    sigmoids: NDArray[np.float32] = np.exp(-np.logaddexp(0, -logits.astype(np.float64))).astype(np.float32)
    return sigmoids


def num_bytes(asked: RerankRequest) -> int:
    """About the size of the reply, whole documents included."""
    documents = asked.documents or asked.texts
    num_bytes = BYTES_PER_RESULT * len(documents) + (sum(map(len, documents)) if asked.return_documents else 0)
    return 2 * num_bytes if asked.is_voyage else num_bytes


def encode(logits: NDArray[np.float32], asked: RerankRequest, *, request_id: str, version: str, num_tokens: int) -> bytes:
    """The response's bytes. `logits` has shape (n,), dtype float32. A score is the shortest text that gives the same float32."""
    scores = scores_of(logits, raw_scores=asked.raw_scores)
    results = [
        {"index": index, "relevance_score": scores[index], **_document_of(asked, index)}
        for index in best_first(logits, asked.top_n)
    ]
    units = -(-len(asked.texts) // DOCUMENTS_A_SEARCH_UNIT)
    meta = RerankMeta(ApiVersion(version), BilledUnits(units), RerankTokens(num_tokens))
    usage = RerankUsage(num_tokens, num_tokens)
    whole = {"id": request_id, "results": results, "model": asked.model, "usage": _plain(usage), "meta": _plain(meta)}
    if asked.is_voyage:
        whole |= {"object": "list", "data": results}
    return orjson.dumps(whole, option=orjson.OPT_SERIALIZE_NUMPY)


def _document_of(asked: RerankRequest, index: int) -> dict[str, Any]:
    if not asked.return_documents:
        return {}
    sent = bytes(asked.documents[index]) if asked.documents is not None else b'"'
    return {"document": orjson.Fragment(sent) if sent[:1] == b"{" else {"text": asked.texts[index]}}


def _plain(part: Struct) -> Any:
    return msgspec.to_builtins(part)
