"""The probes of a front. The engine process answers them, unless it is gone or this front is leaving."""

from collections.abc import Callable

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.api.error_format import JSON
from gateway.api.probes import NOT_NOW, OK, ProbeReport

LIVENESS = frozenset({"/livez", "/health"})
READINESS = "/readyz"
ENGINE = "engine"


class FrontProbes:
    """An ASGI application around the relay. While the engine process is gone this front is alive, and not ready."""

    def __init__(self, relay: ASGIApp, *, has_engine: Callable[[], bool], is_leaving: Callable[[], bool]) -> None:
        self.relay = relay
        self.has_engine = has_engine
        self.is_leaving = is_leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        report = self.report(scope)
        if report is None:
            await self.relay(scope, receive, send)
            return
        status, content = report[0], msgspec.json.encode(report[1])
        scope["path_template"] = scope["path"]
        headers = [(b"content-type", JSON.encode()), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content, "more_body": False})

    def report(self, scope: Scope) -> tuple[int, ProbeReport] | None:
        """The answer of this front; None if the engine process answers."""
        if scope["type"] != ScopeType.HTTP or scope["method"] != "GET":
            return None
        if scope["path"] == READINESS and self.is_leaving():
            return NOT_NOW, ProbeReport(status="draining")
        if self.has_engine():
            return None
        if scope["path"] == READINESS:
            return NOT_NOW, ProbeReport(status="loading", waiting_for=[ENGINE])
        if scope["path"] in LIVENESS:
            return OK, ProbeReport(status="degraded", trouble={ENGINE: "restarting"})
        return None
