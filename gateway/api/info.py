"""GET /info: Azure AI's inference clients call it before they embed. Source: Azure AI Model Inference API, Get Model Info."""

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from gateway.access.keys.key import Caller
from gateway.api.error_format import JSON
from gateway.api.models import usable_names
from gateway.embedding.catalog import Catalog
from gateway.errors import UnknownModel


class ServiceInfo(msgspec.Struct):
    """`model_name` is the default model if the key may use it, else the first model that the key may use."""

    model_name: str
    model_type: str = "embeddings"
    model_provider_name: str = "embeddings-gateway"


def route(catalog: Catalog, default_model: str | None) -> HTTPRouteHandler:
    @get("/info")
    async def info(request: Request[Caller, None, State]) -> Response[bytes]:
        """Raises UnknownModel if the key may use no model."""
        usable = usable_names(catalog, request.user)
        if not usable:
            raise UnknownModel(None)
        model = catalog.find(default_model if default_model in usable else usable[0])
        return Response(msgspec.json.encode(ServiceInfo(model.name)), media_type=JSON)

    return info
