"""/docs, /redoc and /openapi.json. Nothing is loaded from another host: Swagger UI and ReDoc are files beside this module."""

import asyncio
from functools import cache
from importlib.resources import files

import orjson
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway.access.keys.key import Caller
from gateway.api.default_model import default_model
from gateway.api.error_format import JSON
from gateway.api.openapi.document import RequestBounds, document
from gateway.config import ServerSettings
from gateway.embedding.catalog import Catalog
from gateway.embedding.prompt import accepted_input_types
from gateway.errors import UnknownURL

FILES = files("gateway.api") / "docs_files"
ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "redoc.standalone.js": "text/javascript"}
SCRIPTS = {
    "swagger.js": 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true, persistAuthorization: false});',
    "redoc.js": 'Redoc.init("/openapi.json", {hideDownloadButton: true}, document.getElementById("page"));',
}
# Swagger UI and ReDoc set style attributes, and ReDoc searches in a worker made of a blob. All else comes from this server.
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:; worker-src blob:; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
ANYBODY = Caller("")  # the document is the same for every key
HTML = "text/html"  # Litestar adds the charset
PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Embeddings gateway</title>{style}</head>
<body><div id="page"></div><script src="/docs/assets/{bundle}"></script><script src="/docs/assets/{script}"></script></body>
</html>
"""
SWAGGER = PAGE.format(
    style='<link rel="stylesheet" href="/docs/assets/swagger-ui.css">', bundle="swagger-ui-bundle.js", script="swagger.js"
)
REDOC = PAGE.format(style="", bundle="redoc.standalone.js", script="redoc.js")


def routes(catalog: Catalog, settings: ServerSettings, *, needs_key: bool) -> list[HTTPRouteHandler]:
    @get("/openapi.json", exclude_from_auth=True)
    async def openapi(request: Request[None, None, State]) -> Response[bytes]:
        shown = document(request.app.routes, _bounds_of(catalog, settings), needs_key=needs_key)
        return Response(orjson.dumps(shown), media_type=JSON)

    @get("/docs", exclude_from_auth=True)
    async def swagger() -> Response[str]:
        return Response(SWAGGER, media_type=HTML, headers=HEADERS)

    @get("/redoc", exclude_from_auth=True)
    async def redoc() -> Response[str]:
        return Response(REDOC, media_type=HTML, headers=HEADERS)

    @get("/docs/assets/{name:str}", exclude_from_auth=True)
    async def asset(name: FromPath[str]) -> Response[bytes]:
        if name in SCRIPTS:
            return Response(SCRIPTS[name].encode(), media_type="text/javascript", headers=HEADERS)
        if name not in ASSETS:
            raise UnknownURL("GET", f"/docs/assets/{name}")
        return Response(await asyncio.to_thread(_read_asset, name), media_type=ASSETS[name], headers=HEADERS)

    return [openapi, swagger, redoc, asset]


def _bounds_of(catalog: Catalog, settings: ServerSettings) -> RequestBounds:
    """Returns the bounds of the served models. If one is not loaded its bounds are unknown, so only the default model is set."""
    if any(model.state != "ready" for model in catalog.models):
        return RequestBounds(default_model=settings.default_model)
    embedders = [model for model in catalog.models if model.describe().kind == "embedder"]
    abouts = [model.describe() for model in embedders]
    return RequestBounds(
        default_model=settings.default_model,
        max_dimensions=max((model.dimensions for model in embedders), default=None),
        input_types=tuple(dict.fromkeys(name for about in abouts for name in accepted_input_types(about))),
        lengths=tuple(dict.fromkeys(about.max_tokens for about in abouts)),
        takes_instruction=any(about.takes_instruction for about in abouts),
        has_instructed_reranker=any(
            model.describe().takes_instruction for model in catalog.models if model.describe().kind == "reranker"
        ),
        has_default_reranker=default_model(catalog, settings, "reranker", ANYBODY) is not None,
    )


@cache
def _read_asset(name: str) -> bytes:
    return (FILES / name).read_bytes()
