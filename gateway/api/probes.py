"""Being watched: /livez, /readyz, /health and /metrics. Open to all, unless the configuration closes /metrics."""

import asyncio
from collections.abc import Callable, Mapping

import orjson
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from gateway.api.error_handler import JSON
from gateway.config import MetricsSettings
from gateway.embedding.catalog import Catalog
from gateway.metrics import CONTENT_TYPE, Metrics

OK, NOT_NOW = 200, 503


def routes(  # noqa: PLR0913 - all that is watched
    *,
    catalog: Catalog,
    dead_parts: Callable[[], list[str]],
    shortfalls: Mapping[str, Callable[[], str | None]],
    metrics: Metrics,
    settings: MetricsSettings,
    is_leaving: Callable[[], bool],
) -> list[HTTPRouteHandler]:
    @get(["/livez", "/health"], exclude_from_auth=True)
    async def livez() -> Response[bytes]:
        """Alive: a restart would not help. A model whose device thread is gone for good, or a part whose task died, needs one.

        A model that could not be loaded is tried again; a restart would only take the others down.
        """
        broken = dead_parts()
        return report(OK if not broken else NOT_NOW, "ok" if not broken else "failed", failed=broken)

    @get("/readyz", exclude_from_auth=True)
    async def readyz() -> Response[bytes]:
        """Ready: each model serves or is loaded on its first use, and no shutdown has begun.

        Where some failed and others serve, it is ready all the same, and says which failed and why, in a word for strangers: to be
        taken out of service would take the others down. So it does of one that serves, and that somebody should look at. What is
        `without` its store or its Redis, and how it goes on, is told too; `learned` is what a server was found to take.
        """
        if is_leaving():
            return report(NOT_NOW, "draining")
        failed = {model.name: model.category for model in catalog.models if model.state == "failed"}
        without = {part: told for part, shortfall in shortfalls.items() if (told := shortfall()) is not None}
        if awaited := [model.name for model in catalog.loading]:
            return report(NOT_NOW, "loading", waiting_for=awaited, failed=failed, without=without)
        trouble = {model.name: model.trouble for model in catalog.models if model.trouble}
        state = "ready" if not failed and not trouble else "degraded" if catalog.ready else "failed"
        learned = {model.name: dict(found) for model in catalog.models if (found := model.embedder.health().learned)}
        return report(OK if catalog.ready else NOT_NOW, state, failed=failed, trouble=trouble, without=without, learned=learned)

    @get("/metrics", exclude_from_auth=settings.access == "open")
    async def exposition() -> Response[bytes]:
        """In a thread: of many models it takes 20 ms, which nobody else's request should wait for."""
        return Response(await asyncio.to_thread(metrics.exposition), media_type=CONTENT_TYPE)

    serves_metrics = settings.access != "off" and not settings.port
    return [livez, readyz, *([exposition] if serves_metrics else [])]


def dead_parts(catalog: Catalog, parts: Mapping[str, Callable[[], bool]], of_process: Callable[[], list[str]]) -> list[str]:
    """What only a restart brings back: models, a model's dead background work, parts that do not run, parts of the process."""
    broken = [model.name for model in catalog.models if model.is_broken]
    broken += [part for model in catalog.models for part in model.embedder.health().dead_parts]
    broken += [part for part, is_well in parts.items() if not is_well()]
    return broken + of_process()


def report(status: int, state: str, **details: list[str] | dict[str, str] | dict[str, dict[str, int]]) -> Response[bytes]:
    shown = {name: value for name, value in details.items() if value}
    return Response(orjson.dumps({"status": state, **shown}), status_code=status, media_type=JSON)
