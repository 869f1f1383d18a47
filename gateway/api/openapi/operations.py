"""The OpenAPI operations by method and path, as the router has it. Those of the admin routes are in `admin_operations`."""

from gateway.api.error_format import JSON, ErrorBody, ErrorObject
from gateway.api.info import ServiceInfo
from gateway.api.models import ModelObject, ModelsResponse
from gateway.api.openapi.json_schema import Schema, reference
from gateway.api.openapi.operation import Errors, Operation
from gateway.api.page.live import LiveFigures
from gateway.api.probes import ProbeReport
from gateway.api.response_headers import EMBEDDINGS, LIMITS, PAGES
from gateway.errors import (
    BodyTooLarge,
    DeadlinePassed,
    InputTooLong,
    InsufficientPermissions,
    InsufficientQuota,
    InvalidJSON,
    InvalidType,
    LimiterUnavailable,
    MissingParameter,
    ModelLoading,
    ModelUnavailable,
    RateLimited,
    RequestExceedsLimit,
    RequestTooLong,
    TooManyInputs,
    Unembeddable,
    UnknownModel,
    UnknownURL,
    UnsupportedEncoding,
    UpstreamError,
    UpstreamUnavailable,
    WrongModelKind,
)
from gateway.metrics import CONTENT_TYPE
from gateway.wire.request import EmbeddingsBody
from gateway.wire.response import Embedding, EmbeddingsResponse, EmbeddingsUsage

PARSED = (EmbeddingsBody,)
SERVED = (
    EmbeddingsResponse, Embedding, EmbeddingsUsage, ModelsResponse, ModelObject, ServiceInfo, ErrorBody, ErrorObject, ProbeReport,
    LiveFigures,
)  # fmt: skip

OF_A_BODY: Errors = (InvalidJSON, InvalidType, BodyTooLarge, UnsupportedEncoding)
OF_EMBEDDINGS: Errors = (
    *OF_A_BODY,
    MissingParameter, TooManyInputs, InputTooLong, RequestTooLong, RequestExceedsLimit, UnknownModel, WrongModelKind, RateLimited,
    InsufficientQuota, Unembeddable, UpstreamError, UpstreamUnavailable, ModelLoading, ModelUnavailable, LimiterUnavailable,
    DeadlinePassed,
)  # fmt: skip
NOT_MODIFIED, NOT_NOW = 304, 503
HTML = "text/html"
ANY = "*/*"


def path_parameter(name: str, description: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}, "description": description}


def probe(name: str, summary: str) -> Operation:
    return Operation(name=name, tag="probes", summary=summary, reply=ProbeReport, also={NOT_NOW: ProbeReport})


def page(name: str, summary: str, reply: str = HTML, *, asset: str | None = None, is_kept: bool = False) -> Operation:
    """Returns the operation of a file for browsers. `asset` describes the path parameter `name`, if there are several files."""
    return Operation(
        name=name, tag="pages", summary=summary, reply=reply, headers=PAGES, also={NOT_MODIFIED: None} if is_kept else {},
        errors=(UnknownURL,) if asset else (), parameters=(path_parameter("name", asset),) if asset else (),
    )  # fmt: skip


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/embeddings"): Operation(
        name="createEmbeddings",
        tag="embeddings",
        summary="Turn texts into vectors",
        reply=EmbeddingsResponse,
        body={"required": True, "content": {JSON: {"schema": reference(EmbeddingsBody)}}},
        errors=OF_EMBEDDINGS,
        headers=EMBEDDINGS,
        shared_headers=LIMITS,
    ),
    ("GET", "/v1/models"): Operation(name="listModels", tag="models", summary="List the models", reply=ModelsResponse),
    ("GET", "/v1/models/{model:path}"): Operation(
        name="retrieveModel",
        tag="models",
        summary="Describe a model",
        reply=ModelObject,
        errors=(UnknownModel,),
        parameters=(path_parameter("model", "A name or an alias. It may hold slashes."),),
    ),
    ("GET", "/livez"): probe("livez", "Whether the process works; 503 asks for a restart"),
    ("GET", "/health"): probe("health", "As /livez"),
    ("GET", "/readyz"): probe("readyz", "Whether every model serves and no shutdown has begun"),
    ("GET", "/metrics"): Operation(
        name="metrics", tag="probes", summary="Figures, as Prometheus reads them", reply=CONTENT_TYPE.partition(";")[0]
    ),
    ("GET", "/openapi.json"): Operation(name="openapi", tag="pages", summary="This description", reply=JSON),
    ("GET", "/docs"): page("docs", "This description, by Swagger UI"),
    ("GET", "/redoc"): page("redoc", "This description, by ReDoc"),
    ("GET", "/docs/assets/{name:str}"): page("docsAsset", "A file of the two", ANY, asset="Its name."),
    ("GET", "/"): page("page", "The gateway at work", is_kept=True),
    ("GET", "/page/{name:str}"): page("pageAsset", "A file of the page", ANY, asset="Its name.", is_kept=True),
    ("GET", "/page/live"): Operation(
        name="liveFigures",
        tag="pages",
        summary="The page's figures of the last ten minutes",
        reply=LiveFigures,
        errors=(InsufficientPermissions,),
        parameters=(
            {"name": "after", "in": "query", "schema": {"type": "integer"}, "description": "The points whose number is above it."},
        ),
        is_guarded=True,
    ),
}
