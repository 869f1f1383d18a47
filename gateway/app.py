"""The only place where the parts meet: built in road order, started, drained, stopped. Reading it is reading the plan."""

import asyncio
import gc
import ipaddress
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway import log as logging
from gateway.access.access_control import AccessControl, build_access_control
from gateway.access.admission import Admission
from gateway.access.keys.snapshot import KeySnapshot
from gateway.access.limits.fallback_store import FallbackRateLimitStore
from gateway.access.limits.limiter import Limiter
from gateway.access.limits.local_store import LocalRateLimitStore, RateLimitStore
from gateway.access.outage import StoreOutage
from gateway.api import docs, models, probes
from gateway.api.admin import AdminService
from gateway.api.admin import routes as admin_routes
from gateway.api.authentication import Authentication
from gateway.api.embeddings import EmbeddingsHandler
from gateway.api.error_handler import error_response, handle_error
from gateway.api.memory import MemoryWatch, malloc_trim
from gateway.api.middleware import Edge
from gateway.api.page import live, site
from gateway.api.page.figures import Figures
from gateway.cluster.embedder import RayBackend
from gateway.config import Config, ConfigSource, LimitSettings, ModelRow, secret_value
from gateway.embedding.backend import Backend, BackendContext, backend_of, installed_backends
from gateway.embedding.cache import VectorCache
from gateway.embedding.cached import CachedEmbedder
from gateway.embedding.catalog import Catalog
from gateway.embedding.failover import FailoverBackend, FailoverEmbedder
from gateway.embedding.loading import Loader
from gateway.embedding.model import Model
from gateway.engine.embedder import SentenceTransformersBackend
from gateway.errors import ConfigurationError, OperatorError
from gateway.log import get_logger
from gateway.metrics import Metrics
from gateway.reload.diff import embedder_key
from gateway.reload.generation import Generation
from gateway.reload.swap import GenerationSwap, log_task_failure
from gateway.reload.watcher import ConfigWatcher
from gateway.server.log_sampler import LogSampler
from gateway.server.server import Server, bound_socket
from gateway.tracing import Tracing
from gateway.upstream.backend import UPSTREAM_BACKENDS
from gateway.wire.token_ids import other_encoding

BUILTIN_BACKENDS: tuple[Backend, ...] = (SentenceTransformersBackend(), *UPSTREAM_BACKENDS, RayBackend(), FailoverBackend())
LAG_INTERVAL_SECONDS = 0.5
WITHOUT_REDIS = {
    "local": "each gateway applies the whole limit by itself",
    "allow": "requests are served WITHOUT limits",
    "deny": "requests of keys with limits are refused",
}

log = get_logger()


class Gateway:
    """One gateway. Building it checks the whole configuration, and opens and loads nothing.

    `generation` holds what was built from the configuration in effect; the rest is the process's own and outlives that.
    """

    def __init__(
        self, config: Config, backends: Iterable[Backend] = BUILTIN_BACKENDS, *, source: ConfigSource | None = None
    ) -> None:
        """`source` is where the configuration is read from again. Raises ConfigurationError for anything that cannot work."""
        self.is_shutting_down = self.is_draining = False
        self.server: Server | None = None
        self.address = ""  # once it listens
        self.metrics = Metrics()
        self.tracing = Tracing(config.traces) if config.traces.endpoint else None
        self.figures = Figures(self.metrics)
        self.sampler = LogSampler(self.metrics)
        self.cache = VectorCache(config.cache.max_bytes)
        self.metrics.cache_bytes.set_function(lambda: self.cache.num_bytes)
        self.admission = Admission(max_requests=config.server.max_concurrent_requests, max_bytes=config.server.max_buffered_bytes)
        self.backends = installed_backends(backends)
        self.loader = Loader(self.publish_model)
        self.load_lock = asyncio.Lock()
        self.shared: dict[str, Any] = {}  # by the embedders of one backend
        self.swap = GenerationSwap(
            self.build(config), build=self.build, loader=self.loader, on_switched=self.on_swap, metrics=self.metrics
        )
        self.watcher: ConfigWatcher | None = None
        if source is not None:
            self.watcher = ConfigWatcher(source, current=lambda: self.config, renew=self.swap.renew, metrics=self.metrics)

    @property
    def generation(self) -> Generation:
        return self.swap.current

    @property
    def config(self) -> Config:
        return self.generation.config

    @property
    def access_control(self) -> AccessControl | None:
        return self.generation.access_control

    @property
    def snapshot(self) -> KeySnapshot | None:
        return self.access_control.snapshot if self.access_control else None

    @property
    def catalog(self) -> Catalog:
        return self.generation.catalog

    @property
    def handler(self) -> EmbeddingsHandler:
        return self.generation.handler

    @property
    def app(self) -> ASGIApp:
        return self.generation.app

    def build(self, config: Config, before: Generation | None = None) -> Generation:
        """The parts in road order. What `before` has and nothing changed of, such as its embedders, is the same in both."""
        access, limit_store = self.build_access(config, before), build_limit_store(config.limits, before, self.metrics)
        catalog = Catalog(self.build_models(config, before), self.loader)
        default = config.server.default_model
        if default is not None and default not in catalog.by_name:
            raise ConfigurationError(f"server.default_model: no model has the name or alias '{default}'")
        limiter = Limiter(config.limits, limit_store, self.metrics)
        handler = EmbeddingsHandler(
            catalog=catalog,
            admission=self.admission,
            limiter=limiter,
            settings=config.server,
            metrics=self.metrics,
            recorder=access.recorder if access else None,
        )
        admin = (
            AdminService(access.snapshot, access.store, access.usage_store, config.server)
            if access and config.admin.enabled
            else None
        )
        door = self.build_app(config, access, limiter, catalog, handler, admin)
        return Generation(config, access, limiter, catalog, handler, admin, door)

    def build_access(self, config: Config, before: Generation | None) -> AccessControl | None:
        if before is not None and (before.config.auth, before.config.usage) == (config.auth, config.usage):
            return before.access_control
        return build_access_control(config.auth, config.usage, config.store, self.metrics)

    def build_models(self, config: Config, before: Generation | None) -> Iterator[Model]:
        for row in config.models:
            refuse_misread_names(row)
            models = before.catalog.models if before is not None else []
            same = [model for model in models if before and embedder_key(before.config, model.row) == embedder_key(config, row)]
            yield Model(row, same[0].embedder, same[0].built, same[0].load_state) if same else self.build_model(config, row)

    def build_model(self, config: Config, row: ModelRow, *, group: str | None = None) -> Model:
        """Of a row, or of a member of a group, whose metrics are the group's."""
        backend, settings = backend_of(row, self.backends)
        metrics = self.metrics.of_model(group or row.name)
        member = partial(self.build_model, config, group=row.name)
        context = BackendContext(
            row.name, config.limits, config.engine, metrics, config.store.folder, self.load_lock, member, self.shared
        )
        built = backend.build(settings, context)
        if isinstance(built, FailoverEmbedder):  # whose members have the cache, each with its own vectors
            return Model(row, built, built)
        cached = CachedEmbedder(built, self.cache, max_request_tokens=config.limits.max_request_tokens, metrics=metrics)
        return Model(row, cached, built)

    def build_app(  # noqa: PLR0913, PLR0917 - all that a generation has
        self,
        config: Config,
        access: AccessControl | None,
        limiter: Limiter,
        catalog: Catalog,
        handler: EmbeddingsHandler,
        admin: AdminService | None,
    ) -> Edge:
        watched = probes.routes(
            catalog=catalog,
            parts={"limits": lambda: limiter.is_alive, **(access.parts if access else {})},
            shortfalls={"limits": lambda: limiter.shortfall, **(access.shortfalls if access else {})},
            metrics=self.metrics,
            settings=config.metrics,
            is_leaving=lambda: self.is_shutting_down,
        )
        run = admin_routes(admin) if admin else []
        default = config.server.default_model
        told = docs.routes(catalog, default_model=default, has_admin=bool(run)) if config.server.docs else []
        litestar = Litestar(
            [handler.route(), *models.routes(catalog), *run, *watched, *told, *self.page(config, access)],
            middleware=[DefineMiddleware(Authentication, key_snapshot=access.snapshot if access else None, metrics=self.metrics)],
            exception_handlers={Exception: handle_error},
            openapi_config=None,
            logging_config=None,
        )
        paths = [route.path for route in litestar.routes]
        return Edge(
            litestar,
            settings=config.server,
            metrics=self.metrics,
            sampler=self.sampler,
            is_leaving=lambda: self.is_shutting_down,
            is_draining=lambda: self.is_draining,
            paths=paths,
            tracing=self.tracing,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application: whatever generation is in effect when a request comes answers it."""
        await self.generation(scope, receive, send)

    def page(self, config: Config, access: AccessControl | None) -> list[HTTPRouteHandler]:
        settings, key_snapshot = config.page, access.snapshot if access else None
        if not settings.enabled:
            return []
        shown = site.routes(needs_key=key_snapshot is not None, live=settings.live, has_docs=config.server.docs)
        if settings.live == "off":
            return shown
        return [*shown, *live.routes(self.figures, key_snapshot=key_snapshot, metrics=self.metrics, settings=settings)]

    async def start(self) -> None:
        """Reads the keys. Models are loaded by `load`, so that probes are answered meanwhile. Raises OperatorError."""
        await self.generation.start()
        warn(self.generation)

    async def load(self) -> None:
        """Loads the models that are loaded at the start; one that cannot be, or waits for what is unavailable, holds up no other.

        Raises OperatorError where the configuration itself is wrong, or where nothing at all is left to be served.
        """
        models = self.catalog.models
        await asyncio.gather(*(self.loader.load(model) for model in models if model.row.load == "start"))
        for model in models:
            if isinstance(model.load_state.failure, ConfigurationError) and self.generation.has(model):
                raise model.load_state.failure
        failures = [model.load_state.failure for model in self.catalog.models if model.load_state.failure is not None]
        if len(failures) == len(self.catalog.models):
            raise failures[0]

    def publish_model(self, model: Model) -> None:
        about = model.describe()
        self.metrics.of_model(model.name).record_load(
            source=about.source, runtime=about.runtime, device=about.device, precision=about.precision,
            dimensions=str(about.dimensions), fingerprint=about.fingerprint, fidelity=about.fidelity,
        )  # fmt: skip

    def on_swap(self, before: Generation, after: Generation) -> None:
        """What is the process's own, and set by the configuration. Between two requests: nothing here waits."""
        config = after.config
        self.admission.max_requests, self.admission.max_bytes = (
            config.server.max_concurrent_requests,
            config.server.max_buffered_bytes,
        )
        self.cache.resize(config.cache.max_bytes)
        if self.server is not None:
            self.server.apply_settings(config.server)
            self.server.table.configure(config.server)
        if config.log != before.config.log:
            logging.configure(level=config.log.level, line_format=config.log.format)
        if config.auth != before.config.auth:
            warn(after)

    async def serve(self) -> None:
        """Listens, loads, and serves until a signal. Raises OperatorError where it cannot begin."""
        settings = self.config.server
        self.server = server = Server(
            self, settings, metrics=self.metrics, render_error=error_response, sampler=self.sampler,
            on_leave=self.begin_shutdown, on_drain=self.drain, is_idle=lambda: self.admission.num_requests == 0,
        )  # fmt: skip
        listening = bound_socket(settings)
        host, port = listening.getsockname()[:2]
        self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        tasks: list[asyncio.Task[None]] = []
        try:
            await self.start()
            if self.config.metrics.port and self.config.metrics.access != "off":
                self.serve_metrics()
            loading = asyncio.create_task(self.announce(server), name="load")
            tasks = [
                loading,
                create_watched_task(self.watch_lag(), "lag-watch"),
                create_watched_task(self.loader.watch(lambda: self.catalog.models), "load-watch"),
                *([create_watched_task(self.watcher.watch(), "reload")] if self.watcher is not None else []),
                *(
                    [create_watched_task(MemoryWatch(self.admission, trim).watch(), "memory-watch")]
                    if (trim := malloc_trim())
                    else []
                ),
            ]
            with self.watcher.on_hang_up(self.stop) if self.watcher is not None else nullcontext():
                await server.serve(sockets=[listening])
            if loading.done():
                loading.result()
            log.info("stopped")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()
            listening.close()

    def serve_metrics(self) -> None:
        try:
            self.metrics.serve(self.config.metrics.port, self.config.server.host)
        except OSError as error:
            raise OperatorError(f"metrics.port: cannot listen on port {self.config.metrics.port}: {error.strerror}") from None

    async def announce(self, server: Server) -> None:
        """Loads the models and says so. Where none can be, or the configuration is wrong, the server ends."""
        try:
            await self.load()
        except BaseException:
            server.stop(skip_delay=True)
            raise
        gc.collect()
        gc.freeze()  # what was built to stay: looking it through again, every few thousand requests, held up the loop for 50 ms
        serving = [model.name for model in self.catalog.models if model.state != "failed"]
        log.info("ready", url=f"{self.address}/v1", models=serving)

    async def watch_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_INTERVAL_SECONDS
            await asyncio.sleep(LAG_INTERVAL_SECONDS)
            self.metrics.loop_lag.set(max(0.0, loop.time() - due))

    def stop(self) -> None:
        """What SIGTERM does: finish what runs, then end `serve`. Only on the loop that serves."""
        if self.server is not None:
            self.server.stop()

    def begin_shutdown(self) -> None:
        """From now on `/readyz` says no, and each reply closes its connection; requests are served as ever."""
        self.is_shutting_down = True
        log.info("leaving", seconds=self.server.drain_delay_seconds if self.server else 0)

    def drain(self) -> None:
        """From now on new requests are refused; those under way go on."""
        self.is_shutting_down = self.is_draining = True
        log.info("draining")

    async def close(self) -> None:
        await self.figures.close()
        self.sampler.end_window()
        await self.loader.close()
        await self.swap.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)


def warn(generation: Generation) -> None:
    host = generation.config.server.host
    if generation.access_control is not None and generation.access_control.snapshot.is_empty:
        log.warning("no_api_keys", hint="no request can be served yet: make a key with `gateway keys create`")
    if generation.access_control is None and not is_loopback(host):
        log.warning("authentication_is_off", host=host, hint="EVERYBODY who reaches this address can use this server")


def build_limit_store(limits: LimitSettings, before: Generation | None, metrics: Metrics) -> RateLimitStore:
    """Of this process alone, or those that a server keeps for several. They outlive the limits that they are read by."""
    if before is not None and limit_store_key(before.config.limits) == limit_store_key(limits):
        return before.limiter.store
    if limits.redis_url is None:
        return LocalRateLimitStore()
    if find_spec("hiredis") is None:
        raise ConfigurationError("limits.redis_url needs the extra redis: pip install hiredis")
    from gateway.access.limits.redis_connection import address_of  # noqa: PLC0415 - there only with the extra
    from gateway.access.limits.redis_store import RedisRateLimitStore  # noqa: PLC0415

    address = address_of(secret_value(limits.redis_url))
    told = StoreOutage("limiter", hint=WITHOUT_REDIS[limits.on_limiter_failure], show=metrics.limiter_up.set)
    shared = RedisRateLimitStore(address, timeout_seconds=limits.redis_timeout_seconds, told=told)
    if limits.on_limiter_failure != "local":
        return shared
    return FallbackRateLimitStore(shared, LocalRateLimitStore(), on_local=metrics.limiter_failures.labels("local").inc)


def limit_store_key(limits: LimitSettings) -> object:
    return limits.redis_url, limits.redis_timeout_seconds, limits.redis_url and limits.on_limiter_failure


def create_watched_task(work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
    """A task that should never end by itself; its death is told."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(log_task_failure)
    return task


def refuse_misread_names(row: ModelRow) -> None:
    """Clients choose the encoding of token arrays by the model's name; under some names ours would be read wrongly."""
    for name in (row.name, *row.aliases):
        if encoding := other_encoding(name):
            raise ConfigurationError(
                f"models[{row.name}]: clients would send '{name}' token ids of {encoding}, and only cl100k_base is understood:"
                " choose another name"
            )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
