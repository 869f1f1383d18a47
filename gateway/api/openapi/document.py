"""The OpenAPI document: an operation for every served route, and the schemas that they refer to."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from litestar.routes import BaseRoute, HTTPRoute

from gateway import __version__
from gateway.api.openapi.admin_operations import ADMIN_OPERATIONS, ADMIN_PARSED, ADMIN_SERVED
from gateway.api.openapi.batch_operations import BATCHES_OPERATIONS, BATCHES_PARSED, BATCHES_SERVED
from gateway.api.openapi.cohere_operations import COHERE_OPERATIONS, COHERE_PARSED, COHERE_SERVED, bounded_cohere
from gateway.api.openapi.files_operations import FILES_OPERATIONS, FILES_PARSED, FILES_SERVED
from gateway.api.openapi.json_schema import Schema, components
from gateway.api.openapi.ollama_operations import OLLAMA_OPERATIONS, OLLAMA_PARSED, OLLAMA_SERVED, bounded_ollama
from gateway.api.openapi.operation import Operation, error_response
from gateway.api.openapi.operations import OPERATIONS, PARSED, SERVED
from gateway.api.openapi.rerank_operations import RERANK_OPERATIONS, RERANK_PARSED, RERANK_SERVED, bounded_rerank
from gateway.api.openapi.tei_operations import TEI_OPERATIONS, TEI_PARSED, TEI_SERVED
from gateway.errors import MethodNotAllowed, UnknownURL
from gateway.wire.foreign_fields import GEMINI_WORDS
from gateway.wire.request import EmbeddingsBody

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
ANSWERED_BY_EDGE = frozenset({"HEAD", "OPTIONS"})
PARAMETER = re.compile(r"\{(\w+):\w+\}")
# Parsed and served, where such a route is: others are always described.
SCHEMAS_OF_TAG = {
    "admin": (ADMIN_PARSED, ADMIN_SERVED),
    "files": (FILES_PARSED, FILES_SERVED),
    "batches": (BATCHES_PARSED, BATCHES_SERVED),
}
ALL_OPERATIONS = (
    OPERATIONS
    | RERANK_OPERATIONS
    | TEI_OPERATIONS
    | OLLAMA_OPERATIONS
    | COHERE_OPERATIONS
    | ADMIN_OPERATIONS
    | FILES_OPERATIONS
    | BATCHES_OPERATIONS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBounds:
    """The bounds of a request to the served models. If not all are loaded, the last six are unknown and keep their defaults.

    `max_dimensions` is the largest model's. `input_types` are those that any of them takes. `lengths` are the models' `max_tokens`.
    """

    default_model: str | None = None
    max_dimensions: int | None = None
    input_types: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    takes_instruction: bool = True
    has_default_reranker: bool = False
    has_instructed_reranker: bool = True


def document(routes: Iterable[BaseRoute], bounds: RequestBounds, *, needs_key: bool) -> Schema:
    """Returns the document of the served routes. If no key is needed, it does not mention keys."""
    paths: dict[str, Schema] = {}
    tags: dict[str, None] = {}
    for path, method, operation, is_open in served_operations(routes):
        described = operation.describe(needs_key=needs_key and (operation.is_guarded or not is_open))
        paths.setdefault(PARAMETER.sub(r"{\1}", path).replace("{public_id}", "{id}"), {})[method.lower()] = described
        tags[operation.tag] = None
    own = [SCHEMAS_OF_TAG[tag] for tag in tags if tag in SCHEMAS_OF_TAG]
    parsed = (*PARSED, *RERANK_PARSED, *TEI_PARSED, *OLLAMA_PARSED, *COHERE_PARSED)
    served = (*SERVED, *RERANK_SERVED, *TEI_SERVED, *OLLAMA_SERVED, *COHERE_SERVED)
    schemas = components(
        [*parsed, *(kind for each, _ in own for kind in each)], [*served, *(kind for _, each in own for kind in each)]
    )
    name = EmbeddingsBody.__name__
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Embeddings gateway",
            "version": __version__,
            "description": "OpenAI's embeddings API, served by your own models. Every error has the same shape, except at the paths"
            " of other servers' APIs. A path that there is not is answered as the response UnknownURL, a method as"
            " MethodNotAllowed.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        **({"security": [{scheme: []} for scheme in SCHEMES]} if needs_key else {}),
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": {
                **schemas,
                name: bounded(schemas[name], bounds),
                **bounded_rerank(
                    schemas, has_default=bounds.has_default_reranker, takes_instruction=bounds.has_instructed_reranker
                ),
                **bounded_cohere(
                    schemas,
                    default_model=bounds.default_model,
                    max_dimensions=bounds.max_dimensions,
                    input_types=bounds.input_types,
                    lengths=bounds.lengths,
                ),
                **bounded_ollama(schemas, has_default=bounds.default_model is not None),
            },
            "responses": {error.__name__: error_response(error.status, (error,)) for error in (UnknownURL, MethodNotAllowed)},
            **({"securitySchemes": SCHEMES} if needs_key else {}),
        },
    }


def served_operations(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str, Operation, bool]]:
    """Yields path, method, operation, and whether it is open without a key."""
    served = [route for route in routes if isinstance(route, HTTPRoute)]
    paths = {route.path for route in served}
    for route in served:
        for handler in route.route_handlers:
            for method in sorted(handler.http_methods - ANSWERED_BY_EDGE):
                operation = ALL_OPERATIONS[method, handler.opt.get("operation", route.path)]
                yield route.path, method, operation.where(paths), bool(handler.opt.get("exclude_from_auth"))


def bounded(schema: Schema, bounds: RequestBounds) -> Schema:
    """Returns the schema of a request body for these models. With a default model, `model` is not required."""
    properties: dict[str, Any] = {**schema["properties"]}
    required = ["input"]
    if bounds.default_model is None:
        properties["model"] = {**properties["model"], "type": "string", "minLength": 1}
        required.append("model")
    if bounds.max_dimensions is not None:
        for name in ("dimensions", "output_dimension", "output_dimensionality"):
            properties[name] = {**properties[name], "maximum": bounds.max_dimensions}
    if bounds.input_types:
        for name in ("input_type", "prompt_name", "task", "text_type"):
            properties[name] = {**properties[name], "enum": [*bounds.input_types, None]}
        gemini = [word for word, ours in GEMINI_WORDS.items() if ours in bounds.input_types]
        properties["task_type"] = {**properties["task_type"], "enum": [*bounds.input_types, *gemini, None]}
    if bounds.lengths:
        own = {name: value for name, value in properties["truncate_prompt_tokens"].items() if name != "anyOf"}
        properties["truncate_prompt_tokens"] = {**own, "enum": [-1, *bounds.lengths, None]}
    if not bounds.takes_instruction:
        properties["instruction"] = {"type": "null", "description": "No model here takes one."}
    return {**schema, "properties": properties, "required": required}
