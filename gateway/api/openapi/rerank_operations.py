"""The OpenAPI operations of the rerank routes, by method and path."""

from gateway.api.doors.tei_errors import TEIError, tei_status
from gateway.api.error_format import JSON
from gateway.api.openapi.either_operation import EitherOperation
from gateway.api.openapi.json_schema import Schema, reference
from gateway.api.openapi.operation import Operation
from gateway.api.openapi.operations import OF_EMBEDDINGS
from gateway.api.response_headers import EMBEDDINGS, LIMITS, TEI
from gateway.errors import EmptyInput, UnsupportedMediaType
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
from gateway.wire.tei_rerank import TEIRank, TEIRerankBody

RERANK_PARSED = (RerankBody, TEIRerankBody)
RERANK_SERVED = (RerankResponse, RerankResult, RerankUsage, RerankMeta, ApiVersion, BilledUnits, RerankTokens, TEIRank)

NO_INSTRUCTION: Schema = {"type": "null", "description": "No reranker here takes one."}
# On /rerank one of the two arrays is there, and says whose body it is.
DOCUMENTS_ALONE: Schema = {"properties": {"texts": {"type": "null"}}}
TEXTS_ALONE: Schema = {"properties": {"documents": {"type": "null"}}}
RANKS: Schema = {"type": "array", "items": reference(TEIRank), "minItems": 1}


def _body(schema: Schema) -> Schema:
    return {"required": True, "content": {JSON: {"schema": schema}}}


def _rerank(name: str, summary: str, *, body: Schema, reply: type | Schema) -> Operation:
    return Operation(
        name=name, tag="rerank", summary=summary, reply=reply, body=_body(body),
        errors=OF_EMBEDDINGS, headers=EMBEDDINGS, shared_headers=LIMITS,
    )  # fmt: skip


def bounded_rerank(schemas: Schema, *, has_default: bool, takes_instruction: bool) -> Schema:
    """Returns the schemas of the rerank bodies, by name. With a default reranker, `model` is not required."""
    body = schemas[RerankBody.__name__]
    instruction = body["properties"]["instruction"] if takes_instruction else NO_INSTRUCTION
    required = ["query", "documents"] if has_default else ["query", "documents", "model"]
    model = body["properties"]["model"] if has_default else {**body["properties"]["model"], "type": "string", "minLength": 1}
    return {
        RerankBody.__name__: {
            **body,
            "properties": {**body["properties"], "model": model, "instruction": instruction},
            "required": required,
        },
        TEIRerankBody.__name__: {**schemas[TEIRerankBody.__name__], "required": ["query", "texts"]},
    }


RERANK_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/rerank"): _rerank("rerank", "Score documents by a query", body=reference(RerankBody), reply=RerankResponse),
    ("POST", "/v2/rerank"): _rerank("rerankV2", "The same, as Cohere 2", body=reference(RerankBody), reply=RerankResponse),
    ("POST", "/rerank"): EitherOperation(
        name="rerankOrTei",
        tag="rerank",
        summary="The same",
        reply=RerankResponse,
        body=_body({"allOf": [reference(RerankBody), DOCUMENTS_ALONE]}),
        errors=OF_EMBEDDINGS,
        headers=EMBEDDINGS,
        shared_headers=LIMITS,
        other_door="/embed",
        other=Operation(
            name="rerankOrTei",
            tag="rerank",
            summary="a body with texts is TEI's",
            reply=RANKS,
            body=_body({"allOf": [reference(TEIRerankBody), TEXTS_ALONE]}),
            errors=(*OF_EMBEDDINGS, EmptyInput, UnsupportedMediaType),
            headers=(*EMBEDDINGS, *TEI),
            shared_headers=LIMITS,
            error_body=TEIError,
            status_of=tei_status,
            error_types=(JSON, "text/plain"),
        ),
    ),
}
