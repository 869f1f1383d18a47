"""GET /v1/models and /v1/models/{id}, ids with slashes in either form."""

from typing import Any

import orjson
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from gateway.access.keys.key import Caller
from gateway.api.error_handler import JSON
from gateway.embedding.catalog import Catalog, Model
from gateway.errors import UnknownModel

PREFIX = "/v1/models/"


def routes(catalog: Catalog) -> list[HTTPRouteHandler]:
    @get("/v1/models")
    async def list_models(request: Request[Caller, None, State]) -> Response[bytes]:
        entries = [entry(name, model) for name, model in catalog if request.user.may_use(model.row.names)]
        return Response(orjson.dumps({"object": "list", "data": entries}), media_type=JSON)

    @get("/v1/models/{model_id:path}")
    async def get_model(request: Request[Caller, None, State]) -> Response[bytes]:
        name = request.scope["path"].removeprefix(PREFIX)  # as sent: a path parameter would lose doubled slashes
        model = catalog.by_name.get(name)
        if model is None or not request.user.may_use(model.row.names):
            raise UnknownModel(name, usable=usable_names(catalog, request.user))
        return Response(orjson.dumps(entry(name, model)), media_type=JSON)

    return [list_models, get_model]


def allowed_model(catalog: Catalog, name: str, caller: Caller) -> Model:
    """The model that serves `name`. Raises UnknownModel: one the key may not use is as unknown as one that there is not.

    Asked before a model's state is: that a hidden one is loading would tell that it is there.
    """
    model = catalog.by_name.get(name, catalog.catch_all)
    if model is None or not caller.may_use(model.row.names):
        raise UnknownModel(name, usable=usable_names(catalog, caller))
    return model


def usable_names(catalog: Catalog, caller: Caller) -> list[str]:
    return [name for name, model in catalog if caller.may_use(model.row.names)]


def entry(name: str, model: Model) -> dict[str, Any]:
    """OpenAI's four fields, and beside them what only we tell; a model that is still loading has none of these yet."""
    state = model.state
    about = model.describe() if state == "ready" else None
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
        "dimensions": model.dimensions,
        "max_tokens": about.max_tokens,
        "long_input": about.long_input,
        "fingerprint": about.fingerprint,
        "backend": about.backend,
        "source": about.source,
        "runtime": about.runtime,
        "device": about.device,
        "precision": about.precision,
        "fidelity": about.fidelity,
        "prompts": list(about.prompts),
        "fallback": about.fallback or None,
    }
