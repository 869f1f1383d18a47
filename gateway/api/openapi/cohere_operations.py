"""The OpenAPI operations of Cohere's door."""

from collections.abc import Collection
from functools import partial
from typing import Any

from gateway.api.error_format import JSON
from gateway.api.openapi.json_schema import Schema, reference
from gateway.api.openapi.operation import Operation
from gateway.api.openapi.operations import OF_EMBEDDINGS
from gateway.api.openapi.tei_operations import OF_TOKENS
from gateway.api.response_headers import EMBEDDINGS, LIMITS, MODEL
from gateway.wire.cohere import OPTIONAL_PURPOSES, CohereEmbedBody
from gateway.wire.cohere_response import (
    CohereBilledUnits,
    CohereEmbeddings,
    CohereEmbedReply,
    CohereError,
    CohereFloatsReply,
    CohereMeta,
    CohereVersion,
)
from gateway.wire.cohere_tokens import CohereText, CohereTokenMeta, CohereTokens, DetokenizeBody
from gateway.wire.tokenize import TokenizeBody

COHERE_PARSED = (CohereEmbedBody, DetokenizeBody)
COHERE_SERVED = (
    CohereEmbedReply, CohereFloatsReply, CohereEmbeddings, CohereMeta, CohereVersion, CohereBilledUnits, CohereError, CohereTokens,
    CohereText, CohereTokenMeta,
)  # fmt: skip


def _body(kind: type, *required: str) -> Schema:
    own = {"required": list(required), "properties": {name: {"not": {"type": "null"}} for name in required}}
    schema: Schema = {"allOf": [reference(kind), own]} if required else reference(kind)
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

# The texts stand in exactly one of the two.
ONE_OF_TEXTS: Schema = {
    "anyOf": [
        {"required": [name], "properties": {name: {"type": "array"}, other: {"type": "null"}}}
        for name, other in (("texts", "inputs"), ("inputs", "texts"))
    ]
}


def bounded_cohere(
    schemas: Schema,
    *,
    default_model: str | None,
    max_dimensions: int | None,
    input_types: Collection[str],
    lengths: Collection[int],
) -> Schema:
    """Returns the schemas of the bodies of Cohere's door, and of /v1/tokenize, for the served models, by name.

    With a default model, `model` is not required.
    """
    bodies: Schema = {name: schemas[name] for name in (DetokenizeBody.__name__, TokenizeBody.__name__)}
    embed = schemas[CohereEmbedBody.__name__]
    properties: dict[str, Any] = {**embed["properties"]}
    if max_dimensions is not None:
        properties["output_dimension"] = _count_within(properties["output_dimension"], maximum=max_dimensions)
    if lengths:
        properties["max_tokens"] = _count_within(properties["max_tokens"], minimum=max(lengths))
    if input_types:
        properties["input_type"] = {**properties["input_type"], "enum": [*dict.fromkeys((*input_types, *OPTIONAL_PURPOSES)), None]}
        prompts = {"input_type": {"enum": [*input_types, None]}, "prompt_name": {"enum": [*input_types, None]}}
        bodies[TokenizeBody.__name__] = {**bodies[TokenizeBody.__name__], "allOf": [{"properties": prompts}]}
    bodies[CohereEmbedBody.__name__] = {**embed, "properties": properties, **ONE_OF_TEXTS}
    return bodies if default_model is not None else {name: _with_model(body) for name, body in bodies.items()}


def _count_within(schema: Schema, **bounds: int) -> Schema:
    """Returns the schema of a count, or null, with other bounds."""
    [count, *rest] = schema["oneOf"]
    return {**schema, "oneOf": [{**count, **bounds}, *rest]}


def _with_model(schema: Schema) -> Schema:
    """Returns the schema of a body that must name its model."""
    model = {**schema["properties"]["model"], "type": "string", "minLength": 1}
    return {**schema, "properties": {**schema["properties"], "model": model}, "required": [*schema["required"], "model"]}
