"""The OpenAPI operations of Ollama's door. Its errors have one field."""

from dataclasses import replace

from gateway.api.doors.ollama import OllamaErrorBody
from gateway.api.doors.ollama_models import (
    OllamaDetails,
    OllamaProcess,
    OllamaProcesses,
    OllamaShowReply,
    OllamaTag,
    OllamaTags,
    OllamaVersion,
)
from gateway.api.error_format import JSON
from gateway.api.openapi.json_schema import Schema, reference
from gateway.api.openapi.operation import Errors, Headers, Operation
from gateway.api.openapi.operations import OF_A_BODY, OF_EMBEDDINGS
from gateway.api.response_headers import EMBEDDINGS, LIMITS
from gateway.errors import MissingParameter, UnknownModel
from gateway.wire.ollama import (
    OllamaEmbedBody,
    OllamaEmbedReply,
    OllamaOptions,
    OllamaPromptBody,
    OllamaShowBody,
    OllamaVectorReply,
)

OLLAMA_PARSED = (OllamaEmbedBody, OllamaPromptBody, OllamaOptions, OllamaShowBody)
OLLAMA_SERVED = (
    OllamaEmbedReply, OllamaVectorReply, OllamaTags, OllamaTag, OllamaDetails, OllamaProcesses, OllamaProcess, OllamaShowReply,
    OllamaVersion, OllamaErrorBody,
)  # fmt: skip
OF_TEXTS = tuple(replace(header, is_sure=False) for header in EMBEDDINGS)  # a request that only loads a model has none of them
NAMED: Schema = {"type": "string", "minLength": 1}
EITHER_NAME = [{"required": [name], "properties": {name: NAMED}} for name in ("model", "name")]


def bounded_ollama(schemas: Schema, *, has_default: bool) -> Schema:
    """Returns the schemas of its bodies, by name. With a default model, `model` is not required."""
    show = OllamaShowBody.__name__
    bounded = {show: {**schemas[show], "anyOf": EITHER_NAME}}
    for name in () if has_default else (OllamaEmbedBody.__name__, OllamaPromptBody.__name__):
        properties = schemas[name]["properties"]
        bounded[name] = {
            **schemas[name],
            "properties": {**properties, "model": {**properties["model"], **NAMED}},
            "required": ["model"],
        }
    return bounded


def _operation(  # noqa: PLR0913 - named, each of them
    name: str,
    summary: str,
    reply: type,
    *,
    body: type | None = None,
    errors: Errors = (),
    headers: Headers = (),
    shared_headers: Headers = (),
) -> Operation:
    sent = None if body is None else {"required": True, "content": {JSON: {"schema": reference(body)}}}
    return Operation(
        name=name, tag="other servers", summary=summary, reply=reply, body=sent, errors=errors, error_body=OllamaErrorBody,
        headers=headers, shared_headers=shared_headers,
    )  # fmt: skip


OLLAMA_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/api/embed"): _operation(
        "ollamaEmbed", "Turn texts into vectors, as Ollama's clients ask", OllamaEmbedReply,
        body=OllamaEmbedBody, errors=OF_EMBEDDINGS, headers=OF_TEXTS, shared_headers=LIMITS,
    ),
    ("POST", "/api/embeddings"): _operation(
        "ollamaEmbeddings", "The same for one text, as Ollama's older clients ask", OllamaVectorReply,
        body=OllamaPromptBody, errors=OF_EMBEDDINGS, headers=OF_TEXTS, shared_headers=LIMITS,
    ),
    ("GET", "/api/tags"): _operation("ollamaTags", "List the models that give vectors", OllamaTags),
    ("GET", "/api/ps"): _operation("ollamaPs", "List those that are loaded", OllamaProcesses),
    ("POST", "/api/show"): _operation(
        "ollamaShow", "Describe a model", OllamaShowReply,
        body=OllamaShowBody, errors=(*OF_A_BODY, MissingParameter, UnknownModel),
    ),
    ("GET", "/api/version"): _operation("ollamaVersion", "The version of Ollama whose API this is", OllamaVersion),
    ("GET", "ollama"): Operation(
        name="ollamaRoot", tag="other servers", summary="Whether a server is there; in place of the page", reply="text/plain"
    ),
}  # fmt: skip
