"""GET /info: what serves, for the clients of two servers whose paths are the same.

Azure AI's inference clients call it in `load_client` and `get_model_info`, always with `api-version` in the query
(azure-ai-inference 1.0.0b9). text-embeddings-inference's clients read from it how much the server takes (router/src/lib.rs of TEI
1.9). One reply has the fields of both; only `model_type` is in both, a word for Azure and an object for TEI.
"""

import time
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta

from gateway import __version__
from gateway.access.keys.key import Caller
from gateway.api.default_model import default_model
from gateway.api.error_format import JSON
from gateway.api.inference import InferenceHandler
from gateway.api.models import allowed_model, usable_names
from gateway.api.request_log import record_of
from gateway.config import ServerSettings
from gateway.embedding.embedder import Description, ModelKind
from gateway.embedding.model import Model
from gateway.errors import UnknownModel
from gateway.wire.request import MAX_INPUTS

AZURE = "api-version"
TEI_KINDS: dict[ModelKind, str] = {
    "embedder": "embedding", "reranker": "reranker", "sparse_encoder": "embedding", "multi_vector_encoder": "embedding",
}  # fmt: skip
TEI_POOLINGS = {"lasttoken": "last_token"}  # the others are called alike
LABELS = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}  # of a reranker: it has one score
TOKENIZATION_WORKERS = 4


class ServiceInfo(msgspec.Struct):
    """`model_name` is the default model if the key may use it, else the first model that the key may use."""

    model_name: str
    model_type: str = "embeddings"
    model_provider_name: str = "embeddings-gateway"


class TEIInfo(msgspec.Struct, kw_only=True):
    """TEI's fields, and Azure's two others. `model_sha` is the fingerprint: it changes when the vectors do."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: Annotated[dict[str, Any], Meta(description="The model's kind, and of an embedder its pooling.")]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int = MAX_INPUTS
    auto_truncate: Annotated[bool, Meta(description="Whether a text longer than the model reads is served at all.")]
    tokenization_workers: int = TOKENIZATION_WORKERS
    version: Annotated[str, Meta(description="The gateway's.")] = __version__
    sha: str | None = None
    docker_label: str | None = None
    model_name: str
    model_provider_name: str = "embeddings-gateway"


def route(handler: InferenceHandler, *, has_tei: bool, max_batch_tokens: int) -> HTTPRouteHandler:
    @get("/info")
    async def info(request: Request[Caller, None, State]) -> Response[bytes]:
        """Raises UnknownModel if the key may use no model, or not the one in the path; ModelLoading and ModelUnavailable."""
        model = _model_of(handler, request)
        if not has_tei or AZURE in request.query_params:
            return Response(msgspec.json.encode(ServiceInfo(model.name)), media_type=JSON)
        deadline = time.monotonic() + handler.settings.request_timeout_seconds
        await handler.catalog.ensure_ready(model, model.name, deadline=deadline)
        return Response(msgspec.json.encode(_tei_info(model, handler.settings, max_batch_tokens)), media_type=JSON)

    return info


def _model_of(handler: InferenceHandler, request: Request[Caller, None, State]) -> Model:
    """The model in the path, else the one that embeds for requests that name none, else the first that the key may use."""
    if (named := record_of(request.scope).path_model) is not None:
        return allowed_model(handler.catalog, named, request.user)
    usable = usable_names(handler.catalog, request.user)
    if not usable:
        raise UnknownModel(None)
    default = default_model(handler.catalog, handler.settings, "embedder", request.user)
    return handler.catalog.find(default if default in usable else usable[0])


def _tei_info(model: Model, settings: ServerSettings, max_batch_tokens: int) -> TEIInfo:
    about = model.describe()
    return TEIInfo(
        model_id=about.source,
        model_sha=about.fingerprint,
        model_dtype=about.precision,
        served_model_name=model.name,
        model_type={TEI_KINDS[about.kind]: _details_of(about)},
        max_concurrent_requests=settings.max_concurrent_requests,
        max_input_length=about.max_tokens,
        max_batch_tokens=max_batch_tokens,
        auto_truncate=about.long_input != "error",
        model_name=model.name,
    )


def _details_of(about: Description) -> dict[str, Any]:
    if about.kind == "reranker":
        return LABELS
    pooling = "splade" if about.kind == "sparse_encoder" else TEI_POOLINGS.get(about.pooling, about.pooling or None)
    return {"pooling": pooling}
