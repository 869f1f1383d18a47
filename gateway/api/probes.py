"""Being watched: /livez, /readyz, /health and /metrics. Open to all, unless the configuration closes /metrics."""

from collections.abc import Callable

import orjson
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from gateway.access.keyring import Keyring
from gateway.api.failures import JSON
from gateway.config import MetricsSettings
from gateway.embedding.catalog import Catalog
from gateway.metrics import CONTENT_TYPE, Metrics

OK, NOT_NOW = 200, 503


def routes(
    *,
    catalog: Catalog,
    keyring: Keyring | None,
    metrics: Metrics,
    settings: MetricsSettings,
    is_leaving: Callable[[], bool],
) -> list[HTTPRouteHandler]:
    @get(["/livez", "/health"], exclude_from_auth=True)
    async def livez() -> Response[bytes]:
        """Alive: a restart would not help. A model whose device thread is gone for good, or a dead key watch, needs one."""
        broken = [model.name for model in catalog.models if model.embedder.health().state == "failed"]
        if keyring is not None and not keyring.is_watching:
            broken.append("keys")
        return report(OK if not broken else NOT_NOW, "ok" if not broken else "failed", failed=broken)

    @get("/readyz", exclude_from_auth=True)
    async def readyz() -> Response[bytes]:
        """Ready: every model serves, and no shutdown has begun."""
        waiting = [model.name for model in catalog.models if model.embedder.health().state != "ready"]
        if is_leaving():
            return report(NOT_NOW, "draining")
        return report(OK if not waiting else NOT_NOW, "ready" if not waiting else "loading", waiting_for=waiting)

    @get("/metrics", exclude_from_auth=settings.access == "open")
    async def exposition() -> Response[bytes]:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    serves_metrics = settings.access != "off" and not settings.port
    return [livez, readyz, *([exposition] if serves_metrics else [])]


def report(status: int, state: str, **lists: list[str]) -> Response[bytes]:
    shown = {name: value for name, value in lists.items() if value}
    return Response(orjson.dumps({"status": state, **shown}), status_code=status, media_type=JSON)
