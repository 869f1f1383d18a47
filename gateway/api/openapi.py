"""/openapi.json: the contract as OpenAPI 3.1. A test holds real replies of every row against it."""

from typing import Any, get_args

from gateway import __version__
from gateway.config import LongInput
from gateway.wire.request import MAX_INPUTS, MAX_INSTRUCTION_CHARS, EncodingFormat
from gateway.wire.token_ids import MAX_INPUT_IDS

Schema = dict[str, Any]

CLIENT_ERRORS = {
    400: "The request is wrong; `message` and `param` say where.",
    401: "There is no API key, or it is not valid.",
    404: "No such model.",
    405: "The path has no such method; `Allow` says which it has.",
    408: "The body arrived too slowly.",
    413: "The body is too large.",
    429: "A limit of the key is reached: `Retry-After` says when to come back. With `insufficient_quota`, its budget is spent.",
    431: "The headers are too large.",
}
SERVER_ERRORS = {
    500: "A fault of the server, or an input the model has no vector for (`unembeddable_input`).",
    503: "Full, draining or loading; `Retry-After` says when to come back.",
}

TOKEN_ID = {
    "oneOf": [
        {"type": "integer", "minimum": 0, "maximum": 100255},
        {"type": "integer", "minimum": 100257, "maximum": 100260},
        {"type": "integer", "const": 100276},
    ],
    "description": "A token of cl100k_base.",
}
TOKENS = {"type": "array", "items": TOKEN_ID, "minItems": 1, "maxItems": MAX_INPUT_IDS}
TEXT = {"type": "string", "minLength": 1}


def optional(kind: str, description: str, **more: Any) -> Schema:
    """A field that may be absent or null, which is the same."""
    choices = {"enum": [*more.pop("enum"), None]} if "enum" in more else {}
    return {"type": [kind, "null"], "description": description, **choices, **more}


REQUEST: Schema = {
    "type": "object",
    "required": ["input", "model"],
    "anyOf": [{"properties": {name: {"type": "null"}}} for name in ("input_type", "prompt_name")],  # one of the two at most
    "properties": {
        "input": {
            "description": "One text, several, one array of token ids, or several.",
            "oneOf": [
                TEXT,
                {"type": "array", "items": TEXT, "minItems": 1, "maxItems": MAX_INPUTS},
                TOKENS,
                {"type": "array", "items": TOKENS, "minItems": 1, "maxItems": MAX_INPUTS},
            ],
        },
        "model": {"type": "string", "minLength": 1, "description": "A model's name or alias, as /v1/models lists them."},
        "encoding_format": optional(
            "string", "float, or base64 of the little-endian float32 bytes.", enum=get_args(EncodingFormat), default="float"
        ),
        "dimensions": optional("integer", "The first so many components, made length 1 again.", minimum=1),
        "user": optional("string", "Accepted, and used for nothing."),
        "normalize": optional("boolean", "false: the vectors as the model's own modules give them.", default=True),
        "long_input": optional("string", "What becomes of a text longer than the model reads.", enum=get_args(LongInput)),
        "input_type": optional(
            "string",
            "Which of the model's prompts is put before the text: query, document, their synonyms, or any other name it has.",
        ),
        "prompt_name": optional("string", "A synonym of input_type."),
        "instruction": optional(
            "string", "What a query is for, of a model that takes one.", minLength=1, maxLength=MAX_INSTRUCTION_CHARS
        ),
    },
}
EMBEDDING: Schema = {
    "type": "object",
    "required": ["object", "index", "embedding"],
    "properties": {
        "object": {"const": "embedding"},
        "index": {"type": "integer", "minimum": 0},
        "embedding": {
            "oneOf": [
                {"type": "array", "items": {"type": "number"}, "minItems": 1},
                {"type": "string", "contentEncoding": "base64"},
            ]
        },
    },
    "additionalProperties": False,
}
RESPONSE: Schema = {
    "type": "object",
    "required": ["object", "data", "model", "usage"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"$ref": "#/components/schemas/Embedding"}, "minItems": 1},
        "model": {"type": "string"},
        "usage": {
            "type": "object",
            "required": ["prompt_tokens", "total_tokens"],
            "properties": {name: {"type": "integer", "minimum": 0} for name in ("prompt_tokens", "total_tokens")},
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
MODEL: Schema = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by", "state"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "state": {"enum": ["unloaded", "loading", "ready", "failed"]},
        "alias_of": {"type": "string"},
        "dimensions": {"type": "integer", "minimum": 1},
        "max_tokens": {"type": "integer", "minimum": 1},
        "long_input": {"enum": get_args(LongInput)},
        "fingerprint": {"type": "string", "description": "Which vectors these are; vectors of two fingerprints do not mix."},
        "backend": {"type": "string"},
        "runtime": {"type": "string"},
        "device": {"type": "string"},
        "precision": {"type": "string"},
        "fidelity": {"type": ["number", "null"], "description": "The worst cosine to the reference, where it was measured."},
        "source": {"type": "string", "description": "What it was loaded from, or its name on the server that has it."},
        "prompts": {"type": "array", "items": {"type": "string"}, "description": "The prompts it has, for input_type."},
        "fallback": {"type": ["string", "null"], "description": "What was given up for this runtime and precision, and why."},
    },
}
MODELS: Schema = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}},
}
ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "additionalProperties": False,
        }
    },
    "additionalProperties": False,
}
LIMIT_HEADERS = {
    "limit": "The key's limit of {kind} a minute; there are none of these headers where it has no such limit.",
    "burst": "How many {kind} may be sent at once after a rest.",
    "remaining": "How many {kind} may be sent at this moment.",
    "reset": "When the whole burst of {kind} is there again: 12ms, 1s, 6m0s.",
}
HEADERS: Schema = {
    "x-request-id": {
        "schema": {"type": "string"},
        "required": True,
        "description": "The name of this request, for questions about it.",
    },
    "openai-version": {"schema": {"type": "string"}, "required": True},
}
LIMITED_HEADERS: Schema = {
    **HEADERS,
    **{
        f"x-ratelimit-{what}-{kind}": {"schema": {"type": "string"}, "description": told.format(kind=kind)}
        for kind in ("requests", "tokens")
        for what, told in LIMIT_HEADERS.items()
    },
}


def document(
    *, default_model: str | None, max_dimensions: int | None, input_types: list[str] | None = None, takes_instruction: bool = True
) -> Schema:
    """The whole document. With a default model, a request need not name one.

    `max_dimensions` is the largest loaded model's; `input_types` are those that any of them takes, empty where none is loaded.
    """
    properties: Schema = {**REQUEST["properties"]}
    if max_dimensions is not None:
        properties["dimensions"] = {**properties["dimensions"], "maximum": max_dimensions}
    if input_types:
        for name in ("input_type", "prompt_name"):
            properties[name] = {**properties[name], "enum": [*input_types, None]}
    if not takes_instruction:
        properties["instruction"] = {"type": "null", "description": "No model here takes one."}
    request = {**REQUEST, "properties": properties, "required": ["input", "model"] if default_model is None else ["input"]}
    model_id = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string"},
        "description": "It may hold slashes.",
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Embeddings gateway",
            "version": __version__,
            "description": "OpenAI's embeddings API, served by your own models. Every error has the same shape.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"api-key": []}, {"x-api-key": []}],
        "tags": [{"name": "embeddings"}, {"name": "models"}, {"name": "probes"}],
        "paths": {
            "/v1/embeddings": {
                "post": {
                    "operationId": "createEmbeddings",
                    "tags": ["embeddings"],
                    "summary": "Turn texts into vectors",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
                    "responses": responses("EmbeddingsResponse", *CLIENT_ERRORS, *SERVER_ERRORS, headers=LIMITED_HEADERS),
                }
            },
            "/v1/models": {"get": reading("listModels", "models", "List the models", responses("Models", 401, 431, 500, 503))},
            "/v1/models/{model}": {
                "parameters": [model_id],
                "get": reading("retrieveModel", "models", "Describe a model", responses("Model", 401, 404, 431, 500, 503)),
            },
            "/livez": {"get": probe("livez", "Whether the process works; 503 asks for a restart")},
            "/readyz": {"get": probe("readyz", "Whether every model serves and no shutdown has begun")},
        },
        "components": {
            "schemas": {
                "EmbeddingsRequest": request,
                "EmbeddingsResponse": RESPONSE,
                "Embedding": EMBEDDING,
                "Model": MODEL,
                "Models": MODELS,
                "Error": ERROR,
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def reading(operation: str, tag: str, summary: str, answers: Schema) -> Schema:
    return {"operationId": operation, "tags": [tag], "summary": summary, "responses": answers}


def responses(schema: str, *statuses: int, headers: Schema = HEADERS) -> Schema:
    descriptions = CLIENT_ERRORS | SERVER_ERRORS
    errors = {str(status): answer(descriptions[status], "Error", headers) for status in statuses}
    return {"200": answer("Done.", schema, headers), **errors}


def answer(description: str, schema: str, headers: Schema = HEADERS) -> Schema:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "headers": headers, "content": content}


def probe(operation: str, summary: str) -> Schema:
    status = {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
    content = {"application/json": {"schema": status}}
    return {
        **reading(operation, "probes", summary, {code: {"description": summary, "content": content} for code in ("200", "503")}),
        "security": [],
    }
