"""The page's files, read once. Their Content-Security-Policy allows nothing inline, no other host, and no HTML from strings."""

import hashlib
import html
from importlib.resources import files

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway import __version__
from gateway.errors import UnknownURL

STATIC = files("gateway.api.page") / "static"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # cached, but revalidated by ETag: an upgraded server never gets calls of an old script
}


class _Asset:
    """A file as it is sent. `tag` is its ETag, which changes with its content."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self.content = content
        self.media_type = media_type
        self.tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    def response(self, known_tag: str | None) -> Response[bytes]:
        headers = {**HEADERS, "ETag": self.tag}
        if known_tag == self.tag:
            return Response(b"", status_code=304, headers=headers, media_type=self.media_type)
        return Response(self.content, headers=headers, media_type=self.media_type)


def routes(*, needs_key: bool, live: str, has_docs: bool, has_batches: bool) -> list[HTTPRouteHandler]:
    """What is served is written into the page, so that it requests only what it needs."""
    assets = {
        path.name: _Asset(path.read_bytes(), MEDIA_TYPES[path.name[path.name.rindex(".") :]])
        for path in STATIC.iterdir()
        if not path.name.endswith(".html")
    }
    facts = {"docs": "on" if has_docs else "off", "batches": "on" if has_batches else "off"}
    index = _Asset(document(auth="keys" if needs_key else "none", live=live, **facts), "text/html")

    @get("/", exclude_from_auth=True)
    async def page(request: Request[None, None, State]) -> Response[bytes]:
        return index.response(request.headers.get("if-none-match"))

    @get("/page/{name:str}", exclude_from_auth=True)
    async def asset(request: Request[None, None, State], name: FromPath[str]) -> Response[bytes]:
        if name not in assets:
            raise UnknownURL("GET", f"/page/{name}")
        return assets[name].response(request.headers.get("if-none-match"))

    return [page, asset]


def document(**facts: str) -> bytes:
    """Returns index.html with the facts that the page needs before its first request, as data attributes of `<html>`."""
    told = {**facts, "version": __version__}
    attributes = " ".join(f'data-{name}="{html.escape(value)}"' for name, value in told.items())
    return (STATIC / "index.html").read_text(encoding="utf-8").replace("<html", f"<html {attributes}", 1).encode()
