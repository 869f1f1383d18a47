"""Health probes and metrics: /livez, /readyz, /health and /metrics. No key is needed, unless the configuration closes /metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.error_format import JSON
from gateway.config import MetricsSettings
from gateway.embedding.catalog import Catalog
from gateway.metrics import CONTENT_TYPE, Metrics

OK, NOT_NOW = 200, 503

ProbeStatus = Literal["ok", "ready", "degraded", "loading", "failed", "draining"]
Words = Annotated[Mapping[str, str], Meta(min_length=1)]
Names = Annotated[Sequence[str], Meta(min_length=1)]


class ProbeReport(Struct, frozen=True, kw_only=True):
    """The reply of a probe. Healthy parts are left out."""

    status: ProbeStatus
    waiting_for: Annotated[Names | UnsetType, Meta(description="The models that are still loading.")] = UNSET
    failed: Annotated[
        Words | Names | UnsetType,
        Meta(description="Of /readyz: the models that failed, and why in a word; of /livez: what only a restart mends."),
    ] = UNSET
    trouble: Annotated[Words | UnsetType, Meta(description="The models that serve and that somebody should look at.")] = UNSET
    without: Annotated[Words | UnsetType, Meta(description="The parts that go on without their store or Redis, and how.")] = UNSET
    learned: Annotated[
        dict[str, dict[str, int]] | UnsetType, Meta(description="Of a model on another server, what that was found to take.")
    ] = UNSET


def routes(  # noqa: PLR0913 - all that is probed
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
        """Liveness: 503 if only a restart helps, that is if a model's device thread is gone for good, or a part's task died.

        A model that could not be loaded is no reason: it is tried again, and a restart would only take the others down.
        """
        broken = dead_parts()
        return reply(NOT_NOW, ProbeReport(status="failed", failed=broken)) if broken else reply(OK, ProbeReport(status="ok"))

    @get("/readyz", exclude_from_auth=True)
    async def readyz() -> Response[bytes]:
        """Readiness: 200 if each model serves or is loaded on its first use, and no shutdown has begun.

        If some models failed and others serve, it is still 200, since a 503 would take the others down too. In the report, `failed`
        has the failed models with a category that is safe to publish, `trouble` those that serve but need attention. `without` has
        the parts that run without their store or Redis, and how; `learned` has the limits found of models on other servers.
        """
        if is_leaving():
            return reply(NOT_NOW, ProbeReport(status="draining"))
        failed = {model.name: model.category for model in catalog.models if model.state == "failed"} or UNSET
        without = {part: detail for part, shortfall in shortfalls.items() if (detail := shortfall()) is not None} or UNSET
        if awaited := [model.name for model in catalog.loading]:
            return reply(NOT_NOW, ProbeReport(status="loading", waiting_for=awaited, failed=failed, without=without))
        trouble = {model.name: model.trouble for model in catalog.models if model.trouble} or UNSET
        learned = {model.name: dict(found) for model in catalog.models if (found := model.embedder.health().learned)} or UNSET
        is_well = failed is UNSET and trouble is UNSET
        status: ProbeStatus = "ready" if is_well else "degraded" if catalog.ready else "failed"
        report = ProbeReport(status=status, failed=failed, trouble=trouble, without=without, learned=learned)
        return reply(OK if catalog.ready else NOT_NOW, report)

    @get("/metrics", exclude_from_auth=settings.access == "open")
    async def exposition() -> Response[bytes]:
        return Response(await metrics.exposition_of_all(), media_type=CONTENT_TYPE)

    serves_metrics = settings.access != "off" and not settings.port
    return [livez, readyz, *([exposition] if serves_metrics else [])]


def dead_parts(catalog: Catalog, parts: Mapping[str, Callable[[], bool]], of_process: Callable[[], list[str]]) -> list[str]:
    """Returns what only a restart repairs: models, models' dead background tasks, parts that do not run, parts of the process."""
    broken = [model.name for model in catalog.models if model.is_broken]
    broken += [part for model in catalog.models for part in model.embedder.health().dead_parts]
    broken += [part for part, is_well in parts.items() if not is_well()]
    return broken + of_process()


def reply(code: int, report: ProbeReport) -> Response[bytes]:
    return Response(msgspec.json.encode(report), status_code=code, media_type=JSON)
