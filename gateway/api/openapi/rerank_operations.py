"""The OpenAPI operations of the rerank routes, by method and path."""

from dataclasses import dataclass

from gateway.api.doors.tei_errors import TEIError, tei_status
from gateway.api.error_format import JSON
from gateway.api.openapi.json_schema import Schema, reference, without
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
RANKS: Schema = {"type": "array", "items": reference(TEIRank), "minItems": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class EitherOperation(Operation):
    """An operation whose body decides between two forms, each with its own reply and errors. `other` is the second form."""

    other: Operation

    def describe(self, *, needs_key: bool) -> Schema:
        first, second = Operation.describe(self, needs_key=needs_key), self.other.describe(needs_key=needs_key)
        ours, theirs = first["responses"], second["responses"]
        body = {"required": True, "content": _either(first["requestBody"]["content"], second["requestBody"]["content"])}
        responses = {
            status: _either_response(ours[status], theirs[status]) if status in ours and status in theirs
            else ours.get(status) or theirs[status]
            for status in sorted({*ours, *theirs})
        }  # fmt: skip
        return {**first, "requestBody": body, "responses": responses}


def _either_response(ours: Schema, theirs: Schema) -> Schema:
    """Returns a response of either form: a header that only one of them is sure of is not sure."""
    headers = {
        name: header if name in ours["headers"] and name in theirs["headers"] else without(header, "required")
        for name, header in {**theirs["headers"], **ours["headers"]}.items()
    }
    return {**ours, "headers": headers, "content": _either(ours["content"], theirs["content"])}


def _either(ours: Schema, theirs: Schema) -> Schema:
    """Returns the content, by media type, that is in either form."""
    both = {JSON: {"schema": {"anyOf": [ours[JSON]["schema"], theirs[JSON]["schema"]]}}}
    return {**theirs, **ours, **both}


def _rerank(name: str, summary: str, *, body: Schema, reply: type | Schema) -> Operation:
    return Operation(
        name=name, tag="rerank", summary=summary, reply=reply, body={"required": True, "content": {JSON: {"schema": body}}},
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
        summary="The same; a body with texts is TEI's",
        reply=RerankResponse,
        body={"required": True, "content": {JSON: {"schema": reference(RerankBody)}}},
        errors=OF_EMBEDDINGS,
        headers=EMBEDDINGS,
        shared_headers=LIMITS,
        other=Operation(
            name="rerankOrTei",
            tag="rerank",
            summary="",
            reply=RANKS,
            body={"required": True, "content": {JSON: {"schema": reference(TEIRerankBody)}}},
            errors=(*OF_EMBEDDINGS, EmptyInput, UnsupportedMediaType),
            headers=(*EMBEDDINGS, *TEI),
            shared_headers=LIMITS,
            error_body=TEIError,
            status_of=tei_status,
            error_types=(JSON, "text/plain"),
        ),
    ),
}
