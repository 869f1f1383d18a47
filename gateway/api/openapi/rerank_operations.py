"""The OpenAPI operations of the rerank routes, by method and path."""

from gateway.api.error_format import JSON
from gateway.api.openapi.json_schema import Schema, reference
from gateway.api.openapi.operation import Operation
from gateway.api.openapi.operations import OF_EMBEDDINGS
from gateway.api.response_headers import EMBEDDINGS, LIMITS
from gateway.wire.rerank import RerankBody
from gateway.wire.rerank_response import (
    ApiVersion,
    BilledUnits,
    RerankMeta,
    RerankResponse,
    RerankResult,
    RerankTokens,
    RerankUsage,
)
from gateway.wire.tei_rerank import TeiRank, TeiRerankBody

RERANK_PARSED = (RerankBody, TeiRerankBody)
RERANK_SERVED = (RerankResponse, RerankResult, RerankUsage, RerankMeta, ApiVersion, BilledUnits, RerankTokens, TeiRank)

EITHER_BODY: Schema = {"anyOf": [reference(RerankBody), reference(TeiRerankBody)]}
EITHER_REPLY: Schema = {"anyOf": [reference(RerankResponse), {"type": "array", "items": reference(TeiRank), "minItems": 1}]}


def _rerank(name: str, summary: str, *, body: Schema, reply: type | Schema) -> Operation:
    return Operation(
        name=name, tag="rerank", summary=summary, reply=reply, body={"required": True, "content": {JSON: {"schema": body}}},
        errors=OF_EMBEDDINGS, headers=EMBEDDINGS, shared_headers=LIMITS,
    )  # fmt: skip


def bounded_rerank(schemas: Schema, *, has_default: bool) -> Schema:
    """Returns the schemas of the rerank bodies, by name. With a default reranker, `model` is not required."""
    body = schemas[RerankBody.__name__]
    required = ["query", "documents"] if has_default else ["query", "documents", "model"]
    model = body["properties"]["model"] if has_default else {**body["properties"]["model"], "type": "string", "minLength": 1}
    return {
        RerankBody.__name__: {**body, "properties": {**body["properties"], "model": model}, "required": required},
        TeiRerankBody.__name__: {**schemas[TeiRerankBody.__name__], "required": ["query", "texts"]},
    }


RERANK_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/rerank"): _rerank("rerank", "Score documents by a query", body=reference(RerankBody), reply=RerankResponse),
    ("POST", "/v2/rerank"): _rerank("rerankV2", "The same, as Cohere 2", body=reference(RerankBody), reply=RerankResponse),
    ("POST", "/rerank"): _rerank("rerankOrTei", "The same; a body with texts is TEI's", body=EITHER_BODY, reply=EITHER_REPLY),
}
