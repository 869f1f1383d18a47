"""GET /v1/models and /v1/models/{id}, ids with slashes in either form."""

from typing import Any

import orjson
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from gateway.access.keys import Caller
from gateway.api.failures import JSON
from gateway.embedding.catalog import Catalog, Model
from gateway.errors import UnknownModel

PREFIX = "/v1/models/"


def routes(catalog: Catalog) -> list[HTTPRouteHandler]:
    @get("/v1/models")
    async def list_models() -> Response[bytes]:
        return Response(orjson.dumps({"object": "list", "data": [entry(*named) for named in catalog]}), media_type=JSON)

    @get("/v1/models/{model_id:path}")
    async def get_model(request: Request[Caller, None, State]) -> Response[bytes]:
        name = request.scope["path"].removeprefix(PREFIX)  # as sent: a path parameter would lose doubled slashes
        if name not in catalog.by_name:
            raise UnknownModel(name)
        return Response(orjson.dumps(entry(name, catalog.by_name[name])), media_type=JSON)

    return [list_models, get_model]


def entry(name: str, model: Model) -> dict[str, Any]:
    """OpenAI's four fields, and beside them what only we tell; a model that is still loading has none of these yet."""
    state = model.embedder.health().state
    about = model.embedder.describe() if state == "ready" else None
    basic = {
        "id": name,
        "object": "model",
        "created": about.created if about else 0,
        "owned_by": "embeddings-gateway",
        "state": state,
    }
    if name != model.name:
        basic["alias_of"] = model.name
    if about is None:
        return basic
    return {
        **basic,
        "dimensions": about.dimensions,
        "max_tokens": about.max_tokens,
        "long_input": about.long_input,
        "fingerprint": about.fingerprint,
        "backend": about.backend,
        "source": about.source,
        "runtime": about.runtime,
        "device": about.device,
        "precision": about.precision,
        "fidelity": about.fidelity,
    }
