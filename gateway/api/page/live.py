"""GET /page/live: the figures of the last ten minutes, for keys with the admin scope. `page.live = "loopback"` also lets any
client on this machine read them."""

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery
from litestar.types import HTTPScope, Receive, Scope, Send
from msgspec import Meta, Raw, Struct

from gateway.access.access_control import AccessControl
from gateway.api.authentication import Authentication
from gateway.api.error_format import JSON
from gateway.api.page.figures import INTERVAL_SECONDS, KEPT_SECONDS, Figures
from gateway.config import PageSettings
from gateway.errors import InsufficientPermissions
from gateway.metrics import Metrics
from gateway.tcp import is_loopback

PATH = "/page/live"
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")


class LiveFigures(Struct, frozen=True):
    """The points of the page's charts, oldest first. Each is an object with a field for each chart."""

    interval_seconds: float
    kept_seconds: int
    watched_since: Annotated[int, Meta(description="When watching began, in Unix time: nothing before it is shown.")]
    points: Annotated[list[Raw], Meta(extra_json_schema={"items": {"type": "object"}})]


def routes(figures: Figures, *, access: AccessControl, metrics: Metrics, settings: PageSettings) -> list[HTTPRouteHandler]:
    authentication = Authentication(nowhere, access=access, metrics=metrics)

    async def admit(request: Request[Any, Any, State]) -> None:
        """Checks access. Raises what `Authentication` raises, and InsufficientPermissions without the admin scope."""
        if settings.live == "loopback" and _is_from_here(request.scope):
            return
        if not (await authentication.authenticate_request(request)).user.is_admin:
            raise InsufficientPermissions

    @get(PATH, exclude_from_auth=True)  # `admit` authenticates instead: it has the loopback exception
    async def live(request: Request[Any, Any, State], after: FromQuery[int] = -1) -> Response[bytes]:
        """Returns the points whose number is above `after`."""
        await admit(request)
        figures.look()
        shown = LiveFigures(INTERVAL_SECONDS, KEPT_SECONDS, figures.watched_since, figures.after(after))
        return Response(msgspec.json.encode(shown), media_type=JSON)

    return [live]


def _is_from_here(scope: HTTPScope) -> bool:
    """Whether the client is on this machine, and connects without a proxy.

    A proxy on this machine has a loopback address too: it sends a FORWARDED header. So has a browser on a foreign page whose name
    was made to resolve to 127.0.0.1 (DNS rebinding): its `Host` is that name.
    """
    client = scope.get("client")
    names = {name for name, _ in scope["headers"]}
    return client is not None and is_loopback(client[0]) and names.isdisjoint(FORWARDED) and is_loopback(host_of(scope["headers"]))


def host_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Returns the request's `Host` without its port."""
    host = next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
    return host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """The application of an `Authentication` that is used only to authenticate, never to serve."""
