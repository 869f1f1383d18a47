"""The OpenAPI operations of Cohere's door."""

from functools import partial

from gateway.api.error_format import JSON
from gateway.api.openapi.json_schema import Schema, reference
from gateway.api.openapi.operation import Operation
from gateway.api.openapi.operations import OF_EMBEDDINGS
from gateway.api.openapi.tei_operations import OF_TOKENS
from gateway.api.response_headers import EMBEDDINGS, LIMITS, MODEL
from gateway.wire.cohere import (
    CohereBilledUnits,
    CohereEmbedBody,
    CohereEmbeddings,
    CohereEmbedReply,
    CohereError,
    CohereFloatsReply,
    CohereMeta,
    CohereVersion,
)
from gateway.wire.cohere_tokens import CohereText, CohereTokenMeta, CohereTokens, DetokenizeBody

COHERE_PARSED = (CohereEmbedBody, DetokenizeBody)
COHERE_SERVED = (
    CohereEmbedReply, CohereFloatsReply, CohereEmbeddings, CohereMeta, CohereVersion, CohereBilledUnits, CohereError, CohereTokens,
    CohereText, CohereTokenMeta,
)  # fmt: skip


def _body(kind: type, *required: str) -> Schema:
    schema: Schema = {"allOf": [reference(kind), {"required": list(required)}]} if required else reference(kind)
    return {"required": True, "content": {JSON: {"schema": schema}}}


_cohere = partial(Operation, tag="other servers", error_body=CohereError, shared_headers=LIMITS)

COHERE_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v2/embed"): _cohere(
        name="cohereEmbed", summary="Turn texts into vectors, as Cohere's clients ask", reply=CohereEmbedReply,
        body=_body(CohereEmbedBody, "input_type"), errors=OF_EMBEDDINGS, headers=EMBEDDINGS,
    ),
    ("POST", "/v1/embed"): _cohere(
        name="cohereEmbedV1", summary="The same for clients of Cohere's first version",
        reply={"anyOf": [reference(CohereEmbedReply), reference(CohereFloatsReply)]},
        body=_body(CohereEmbedBody), errors=OF_EMBEDDINGS, headers=EMBEDDINGS,
    ),
    ("POST", "/v1/detokenize"): _cohere(
        name="cohereDetokenize", summary="Turn the model's own tokens into text, as Cohere's clients ask", reply=CohereText,
        body=_body(DetokenizeBody, "tokens"), errors=OF_TOKENS, headers=MODEL,
    ),
}  # fmt: skip
