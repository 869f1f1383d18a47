"""Ollama's door: what its clients ask of a server that embeds. Source: server/routes.go of ollama/ollama, 0.33.

Its other paths below /api/ are 404s in its shape: nothing is generated, pulled or deleted here.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from gateway.access.keys.key import Caller
from gateway.api import body
from gateway.api.door import Door, Embedded, JSONReply, RequestContext
from gateway.api.doors import ollama_models as models
from gateway.api.doors.ollama_names import OllamaNames, is_other_kind, tagged
from gateway.api.embeddings import embed
from gateway.api.error_format import JSON, ErrorFormat, RenderedError
from gateway.api.inference import InferenceHandler
from gateway.api.inference_headers import model_header
from gateway.api.models import allowed_model
from gateway.errors import GatewayError, InputTooLong, InvalidValue, MissingParameter, UnknownModel, UnknownURL, WrongModelKind
from gateway.wire import ollama as wire
from gateway.wire.ollama import OllamaRequest
from gateway.wire.request import EmbeddingsRequest

PREFIX = "/api/"
RUNNING = "Ollama is running"  # clients only look at the status
MAX_SHOW_BYTES = 64 * 1024


class OllamaErrorBody(msgspec.Struct, frozen=True):
    """The body of every error."""

    error: str


def _error_format(*, unknown: Callable[[str], str], missing: tuple[int, str]) -> ErrorFormat:
    """Ollama's endpoints have words of their own for a model that there is not, and one that was not named."""

    def render(error: GatewayError) -> RenderedError:
        status, text = error.status, error.message
        match error:
            case UnknownModel(name=str(name)):
                text = unknown(name)
            case MissingParameter(param="body"):
                text = "missing request body"
            case MissingParameter(param="model"):
                status, text = missing
            case UnknownURL():
                text = f"{text}: this server embeds texts, and does nothing else of Ollama's API"
            case InputTooLong():
                text = "the input length exceeds the context length"
        return RenderedError(status, msgspec.json.encode(OllamaErrorBody(text)))

    return render


def _pull_first(name: str) -> str:
    return f'model "{name}" not found, try pulling it first'


embed_error = _error_format(unknown=_pull_first, missing=(404, "model '' not found"))
prompt_error = _error_format(unknown=_pull_first, missing=(400, "model is required"))
show_error = _error_format(unknown=lambda name: f"model '{tagged(name)}' not found", missing=(400, "model is required"))
ERROR_FORMATS: dict[str, ErrorFormat] = {PREFIX: prompt_error, "/api/show": show_error}


def doors(handler: InferenceHandler) -> list[Door[OllamaRequest]]:
    """The doors /api/embed and /api/embeddings."""
    names = OllamaNames(handler.catalog)

    async def embed(request: OllamaRequest, context: RequestContext) -> JSONReply:
        encode = partial(_encode_embed, model=request.asked.model, started=context.record.started)
        return await _answer(
            handler, _found(names, request, context), context, encode, loaded=wire.encode_loaded(request.asked.model)
        )

    async def embed_prompt(request: OllamaRequest, context: RequestContext) -> JSONReply:
        return await _answer(handler, _found(names, request, context), context, _encode_prompt, loaded=wire.EMPTY_VECTOR)

    return [
        Door("/api/embed", "ollama_embed", wire.decode_embed, embed, embed_error),
        Door("/api/embeddings", "ollama_embeddings", wire.decode_prompt, embed_prompt, prompt_error),
    ]


def _found(names: OllamaNames, request: OllamaRequest, context: RequestContext) -> OllamaRequest:
    """The request for the model by its own name here."""
    asked = request.asked
    name = names.find(asked.model, context.caller)
    return request if name == asked.model else replace(request, asked=replace(asked, model=name))  # two copies take 4 microseconds


async def _answer(
    handler: InferenceHandler,
    request: OllamaRequest,
    context: RequestContext,
    encode: Callable[[Embedded], bytes],
    *,
    loaded: bytes,
) -> JSONReply:
    """The reply; `loaded` if there was no text: the model is loaded then, and nothing else."""
    if not request.asked.texts:
        model = await handler.find_model(request.asked.model, "embedder", context, num_inputs=0)
        return JSONReply(loaded, model_header(request.asked.model, model))
    done = await _embed(handler, request.asked, context)
    wire.refuse_small_context(request.num_ctx, done.model.describe().max_tokens, done.token_counts)
    return await handler.reply(done, context, encode)


async def _embed(handler: InferenceHandler, asked: EmbeddingsRequest, context: RequestContext) -> Embedded:
    """Embeds. A model on a server that only has vectors of length 1 gives those, also at the endpoint that does not normalise."""
    try:
        return await embed(handler, asked, context)
    except InvalidValue as error:
        if error.param != "normalize":
            raise
    return await embed(handler, replace(asked, normalize=True), context)


def _encode_embed(done: Embedded, *, model: str, started: float) -> bytes:
    total = time.perf_counter() - started
    worked = sum(done.prepared.stages.values()) + sum(done.vectors.stages.values())
    return wire.encode_embed(
        done.rows, model=model, num_tokens=done.num_tokens, total_seconds=total, load_seconds=max(0.0, total - worked)
    )


def _encode_prompt(done: Embedded) -> bytes:
    return wire.encode_prompt(done.rows[0])


def routes(handler: InferenceHandler, *, has_page: bool) -> list[HTTPRouteHandler]:
    """The routes that compute nothing. Without our page, `/` answers as Ollama's does: AnythingLLM and others ask it first."""
    names = OllamaNames(handler.catalog)
    small = msgspec.structs.replace(handler.settings, max_body_bytes=min(MAX_SHOW_BYTES, handler.settings.max_body_bytes))

    @get("/api/tags")
    async def ollama_tags(request: Request[Caller, None, State]) -> Response[bytes]:
        return _json(models.tags(names.listed(request.user)))

    @get("/api/ps")
    async def ollama_ps(request: Request[Caller, None, State]) -> Response[bytes]:
        return _json(models.processes(names.listed(request.user)))

    @get("/api/version")
    async def ollama_version() -> Response[bytes]:
        return _json(models.OllamaVersion())

    @post("/api/show", status_code=200)
    async def ollama_show(request: Request[Caller, None, State]) -> Response[bytes]:
        sent = wire.decode_show(await body.read_small(request.scope, request.receive, handler.admission, small))
        name = names.find(sent, request.user)
        try:
            model = allowed_model(handler.catalog, name, request.user)
        except UnknownModel:
            raise UnknownModel(sent) from None
        if is_other_kind(model):
            raise WrongModelKind(model.name, model.describe().kind, wanted="embedder")
        return _json(models.show(tagged(name), model))

    @get("/", exclude_from_auth=True, operation="ollama")
    async def ollama_root() -> Response[bytes]:
        return Response(RUNNING.encode(), media_type="text/plain")

    shown = [ollama_tags, ollama_ps, ollama_version, ollama_show]
    return shown if has_page else [*shown, ollama_root]


def _json(reply: msgspec.Struct) -> Response[bytes]:
    return Response(msgspec.json.encode(reply), media_type=JSON)
