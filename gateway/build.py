"""Builds a generation from a configuration, in the order that a request passes its parts. Nothing is opened or loaded."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp

from gateway.access.access_control import AccessControl, build_access_control
from gateway.access.admission import Admission
from gateway.access.limits.build import build_limiter
from gateway.access.limits.limiter import Limiter
from gateway.api import batches, docs, embeddings, files, info, models, probes, rerank, tokenization
from gateway.api import doors as other_doors
from gateway.api.admin import AdminService
from gateway.api.admin import routes as admin_routes
from gateway.api.authentication import Authentication
from gateway.api.batch_road import batch_road
from gateway.api.door import Door
from gateway.api.doors.cohere import cohere_error
from gateway.api.error_format import ErrorFormat
from gateway.api.error_handler import handle_error
from gateway.api.inference import InferenceHandler
from gateway.api.middleware import Edge
from gateway.api.page import live, site
from gateway.api.page.figures import Figures
from gateway.batches.service import BatchService
from gateway.cluster.backend import RayBackend
from gateway.config import Config, ModelRow
from gateway.embedding.backend import Backend, BackendContext, BoundBackend
from gateway.embedding.cache import VectorCache
from gateway.embedding.cached import CachedEmbedder
from gateway.embedding.catalog import Catalog
from gateway.embedding.failover_backend import FailoverBackend
from gateway.embedding.loading import Loader
from gateway.embedding.model import Model
from gateway.embedding.registry import backend_of
from gateway.embedding.row_ranges import read_ranges
from gateway.engine.backend import SentenceTransformersBackend
from gateway.errors import ConfigurationError
from gateway.files.store import FileStore, build_file_store
from gateway.metrics import Metrics
from gateway.reload.diff import embedder_key
from gateway.reload.generation import Generation
from gateway.server.log_sampler import LogSampler
from gateway.tracing import Tracing
from gateway.upstream.backend import UPSTREAM_BACKENDS
from gateway.wire.token_ids import other_encoding

BUILTIN_BACKENDS: tuple[Backend, ...] = (SentenceTransformersBackend(), *UPSTREAM_BACKENDS, RayBackend(), FailoverBackend())


@dataclass(frozen=True, slots=True)
class GenerationBuilder:
    """Has the process's own parts, which all generations share and which outlive each one.

    `is_leaving` and `is_draining` tell how far a shutdown has come; `dead_parts` names the process's parts that died. `load_lock`
    and `shared` are for backends, see BackendContext.
    """

    backends: dict[str, Backend]
    loader: Loader
    cache: VectorCache
    admission: Admission
    batches: BatchService
    metrics: Metrics
    figures: Figures
    sampler: LogSampler
    tracing: Tracing | None
    is_leaving: Callable[[], bool]
    is_draining: Callable[[], bool]
    dead_parts: Callable[[], list[str]]
    load_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shared: dict[str, Any] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))  # of generations

    def build(self, config: Config, before: Generation | None = None) -> Generation:
        """Builds the parts. It reuses those of `before` whose settings did not change, embedders among them.

        Raises ConfigurationError if any part cannot work.
        """
        access = self.build_access(config, before)
        limiter = build_limiter(config.limits, self.metrics, before=before.limiter if before is not None else None)
        catalog = self.build_catalog(config, before)
        handler = InferenceHandler(
            access=access,
            catalog=catalog,
            admission=self.admission,
            limiter=limiter,
            settings=config.server,
            metrics=self.metrics,
        )
        admin = AdminService(access.require_keys(), config.server) if config.admin.enabled else None
        file_store = self.build_files(config, before)
        parts = {"limits": lambda: limiter.is_alive, **access.parts, **(file_store.parts if file_store else {})}
        dead_parts = partial(probes.dead_parts, catalog, parts, self.dead_parts)
        road = batch_road(
            config, access=access, limiter=limiter, catalog=catalog, admission=self.admission, metrics=self.metrics,
            is_local=lambda row: self.bind(config, row).is_local(),
        )  # fmt: skip
        doors = build_doors(handler, config)
        routes = [
            *map(handler.route, doors),
            *models.routes(catalog),
            info.route(handler, has_tei=config.doors.tei, max_batch_tokens=config.limits.max_request_tokens),
            *other_doors.routes(handler, config.doors, has_page=config.page.enabled),
            *(files.routes(file_store, config.files) if file_store else []),
            *(admin_routes(admin) if admin else []),
            *(self.batch_routes(config, access, file_store) if file_store else []),
            *self.probe_routes(config, access, limiter, catalog, dead_parts),
            *_docs_routes(config, catalog, needs_key=access.needs_key),
            *self.page_routes(config, access),
        ]
        apps = {door.path: handler.application(door) for door in doors}
        self.figures.routes |= apps.keys() - {"/"}  # which is the page's route too
        formats = {**other_doors.error_formats(config.doors), **{door.path: door.errors for door in doors}}
        app = self.build_app(config, access, routes, apps, formats)
        return Generation(config, access, limiter, catalog, handler, admin, file_store, road, app, dead_parts, next(self.numbers))

    def build_access(self, config: Config, before: Generation | None) -> AccessControl:
        if before is not None and (before.config.auth, before.config.usage) == (config.auth, config.usage):
            return before.access_control
        return build_access_control(config.auth, config.usage, config.store, self.metrics)

    def build_files(self, config: Config, before: Generation | None) -> FileStore | None:
        if before is not None and (before.config.files, before.config.has_files) == (config.files, config.has_files):
            return before.files
        return build_file_store(config.files, config.store, self.metrics.files) if config.has_files else None

    def batch_routes(self, config: Config, access: AccessControl, files: FileStore) -> list[HTTPRouteHandler]:
        return batches.routes(batches.BatchesHandler(self.batches, files, config.batches, config.server), access)

    def build_catalog(self, config: Config, before: Generation | None) -> Catalog:
        catalog = Catalog(self.build_models(config, before), self.loader)
        for setting in ("default_model", "default_reranker"):
            default = getattr(config.server, setting)
            if default is not None and default not in catalog.by_name:
                raise ConfigurationError(f"server.{setting}: no model has the name or alias '{default}'")
        return catalog

    def build_models(self, config: Config, before: Generation | None) -> Iterator[Model]:
        for row in config.models:
            refuse_misread_names(row)
            models = before.catalog.models if before is not None else []
            same = [model for model in models if before and embedder_key(before.config, model.row) == embedder_key(config, row)]
            if same:
                yield Model(row, same[0].embedder, same[0].built, same[0].load_state, read_ranges(row))
            else:
                yield self.bind(config, row).build()

    def bind(self, config: Config, row: ModelRow, *, group: str | None = None) -> BoundBackend:
        """Binds a row, or a member of a group, to its backend. A member has its group's metrics. Raises ConfigurationError."""
        backend, settings = backend_of(row, self.backends)
        metrics = self.metrics.of_model(group or row.name)
        member = partial(self.bind, config, group=group or row.name)
        context = BackendContext(
            row.name, config.limits, config.engine, metrics, config.store.folder, self.load_lock, member, self.shared,
            is_serving=lambda: self.loader.has_loaded,
        )  # fmt: skip
        cached = partial(CachedEmbedder, cache=self.cache, max_request_tokens=config.limits.max_request_tokens, metrics=metrics)
        return BoundBackend(row, backend, settings, context, cached)

    def probe_routes(
        self, config: Config, access: AccessControl, limiter: Limiter, catalog: Catalog, dead_parts: Callable[[], list[str]]
    ) -> list[HTTPRouteHandler]:
        return probes.routes(
            catalog=catalog,
            dead_parts=dead_parts,
            shortfalls={"limits": lambda: limiter.shortfall, **access.shortfalls},
            metrics=self.metrics,
            settings=config.metrics,
            is_leaving=self.is_leaving,
        )

    def page_routes(self, config: Config, access: AccessControl) -> list[HTTPRouteHandler]:
        settings = config.page
        if not settings.enabled:
            return []
        shown = site.routes(
            needs_key=access.needs_key, live=settings.live, has_docs=config.server.docs, has_batches=config.has_files
        )
        if settings.live == "off":
            return shown
        return [*shown, *live.routes(self.figures, access=access, metrics=self.metrics, settings=settings)]

    def build_app(
        self,
        config: Config,
        access: AccessControl,
        routes: list[HTTPRouteHandler],
        doors: dict[str, ASGIApp],
        formats: dict[str, ErrorFormat],
    ) -> Edge:
        litestar = Litestar(
            routes,
            middleware=[DefineMiddleware(Authentication, access=access, metrics=self.metrics)],
            exception_handlers={Exception: handle_error},
            openapi_config=None,
            logging_config=None,
        )
        return Edge(
            litestar,
            settings=config.server,
            metrics=self.metrics,
            sampler=self.sampler,
            is_leaving=self.is_leaving,
            is_draining=self.is_draining,
            methods={route.path_format: _allowed_methods(route) for route in litestar.routes if isinstance(route, HTTPRoute)},
            doors=doors,
            formats=formats,
            has_tei=config.doors.tei,
            tracing=self.tracing,
        )


def build_doors(handler: InferenceHandler, config: Config) -> list[Door[Any]]:
    """The doors that are open, by the configuration."""
    return [
        embeddings.door(handler),
        tokenization.door(handler, cohere_error=cohere_error if config.doors.cohere else None),
        *rerank.doors(handler, config.doors),
        *other_doors.doors(handler, config.doors),
    ]


def _allowed_methods(route: HTTPRoute) -> str:
    """The value of an Allow header. Edge answers HEAD by GET."""
    methods = {str(method) for method in route.methods}
    return ", ".join(sorted(methods | {"HEAD", "OPTIONS"} if "GET" in methods else methods | {"OPTIONS"}))


def _docs_routes(config: Config, catalog: Catalog, *, needs_key: bool) -> list[HTTPRouteHandler]:
    if not config.server.docs:
        return []
    return docs.routes(catalog, config.server, needs_key=needs_key)


def refuse_misread_names(row: ModelRow) -> None:
    """Raises ConfigurationError for a name for which clients would encode token arrays otherwise than in cl100k_base."""
    for name in (row.name, *row.aliases):
        if encoding := other_encoding(name):
            raise ConfigurationError(
                f"models[{row.name}]: clients would send '{name}' token ids of {encoding}, and only cl100k_base is understood:"
                " choose another name"
            )
