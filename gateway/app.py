"""The only place where the parts meet: built in road order, started, drained, stopped. Reading it is reading the plan."""

import asyncio
import gc
import ipaddress
import time
from collections.abc import Iterable

from litestar import Litestar
from litestar.middleware import DefineMiddleware

from gateway.access.admission import Admission
from gateway.access.keyring import Keyring
from gateway.access.store import KeyStore
from gateway.api import docs, models, probes
from gateway.api.authentication import Authentication
from gateway.api.edge import Edge
from gateway.api.embeddings import Road
from gateway.api.failures import answer
from gateway.api.server import Server, bound_socket
from gateway.cluster.clustered import Clustered, Ray
from gateway.config import Config, ModelRow
from gateway.embedding.backend import Backend, Context, backend_of, installed_backends
from gateway.embedding.cache import VectorCache
from gateway.embedding.cached import Cached
from gateway.embedding.catalog import Catalog, Model
from gateway.engine.local import SentenceTransformers
from gateway.errors import ConfigurationError, OperatorError
from gateway.log import get_logger
from gateway.metrics import Metrics
from gateway.wire.token_ids import other_encoding

BUILTIN_BACKENDS: tuple[Backend, ...] = (SentenceTransformers(), Ray())
LAG_INTERVAL_SECONDS = 0.5

log = get_logger()


class Gateway:
    """One gateway. Building it checks the whole configuration, and opens and loads nothing."""

    def __init__(self, config: Config, backends: Iterable[Backend] = BUILTIN_BACKENDS) -> None:
        """Raises ConfigurationError for anything that cannot work."""
        self.config = config
        self.is_draining = False
        self.server: Server | None = None
        self.address = ""  # once it listens
        self.metrics = Metrics()
        self.keyring = Keyring(config.auth, KeyStore(config.store.folder)) if config.auth.mode == "keys" else None
        self.cache = VectorCache(config.cache.max_bytes)
        self.metrics.cache_bytes.set_function(lambda: self.cache.num_bytes)
        self.catalog = built_catalog(config, installed_backends(backends), self.cache, self.metrics)
        self.road = Road(
            catalog=self.catalog,
            admission=Admission(max_requests=config.server.max_concurrent_requests, max_bytes=config.server.max_buffered_bytes),
            settings=config.server,
            metrics=self.metrics,
        )
        self.door = self.built_door()

    def built_door(self) -> Edge:
        watched = probes.routes(
            catalog=self.catalog,
            keyring=self.keyring,
            metrics=self.metrics,
            settings=self.config.metrics,
            is_draining=lambda: self.is_draining,
        )
        told = docs.routes(self.catalog, default_model=self.config.server.default_model) if self.config.server.docs else []
        litestar = Litestar(
            [self.road.route(), *models.routes(self.catalog), *watched, *told],
            middleware=[DefineMiddleware(Authentication, keyring=self.keyring, metrics=self.metrics)],
            exception_handlers={Exception: answer},
            openapi_config=None,
            logging_config=None,
        )
        paths = [route.path for route in litestar.routes]
        default = self.config.server.default_model
        if default is not None and default not in self.catalog.by_name:
            raise ConfigurationError(f"server.default_model: no model has the name or alias '{default}'")
        return Edge(
            litestar,
            settings=self.config.server,
            metrics=self.metrics,
            is_draining=lambda: self.is_draining,
            paths=paths,
        )

    async def start(self) -> None:
        """Reads the keys. Models are loaded by `load`, so that probes are answered meanwhile. Raises OperatorError."""
        if self.keyring is not None:
            await self.keyring.start()
            if self.keyring.is_empty:
                log.warning("no_api_keys", hint="no request can be served yet: make a key with `gateway keys create`")
        elif not is_loopback(self.config.server.host):
            log.warning(
                "authentication_is_off",
                host=self.config.server.host,
                hint="EVERYBODY who reaches this address can use this server",
            )

    async def load(self) -> None:
        """Starts every model: those of this machine one after another, and all clusters' beside them, as one may be away.

        Raises OperatorError for the first that cannot be served.
        """
        elsewhere = [model for model in self.catalog.models if isinstance(model.built, Clustered)]
        own = [model for model in self.catalog.models if model not in elsewhere]
        loading = [asyncio.create_task(self.load_in_turn(models), name="load") for models in (own, *([each] for each in elsewhere))]
        try:
            await asyncio.gather(*loading)
        finally:
            for task in loading:
                task.cancel()
            await asyncio.gather(*loading, return_exceptions=True)

    async def load_in_turn(self, models: Iterable[Model]) -> None:
        for model in models:
            log.info("loading_model", model=model.name, source=model.row.settings.get("source", model.row.backend))
            started = time.perf_counter()
            await model.start()
            about = model.embedder.describe()
            self.metrics.of_model(model.name).loaded(
                source=about.source, runtime=about.runtime, device=about.device, precision=about.precision,
                dimensions=str(about.dimensions), fingerprint=about.fingerprint, fidelity=about.fidelity,
            )  # fmt: skip
            log.info(
                "model_loaded", model=model.name, runtime=about.runtime, device=about.device, precision=about.precision,
                fingerprint=about.fingerprint, seconds=round(time.perf_counter() - started, 1),
            )  # fmt: skip

    async def serve(self) -> None:
        """Listens, loads, and serves until a signal. Raises OperatorError where it cannot begin."""
        settings = self.config.server
        self.server = server = Server(self.door, settings, on_stop=self.drain)
        listening = bound_socket(settings)
        host, port = listening.getsockname()[:2]
        self.address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        tasks: list[asyncio.Task[None]] = []
        try:
            await self.start()
            if self.config.metrics.port and self.config.metrics.access != "off":
                self.serve_metrics()
            tasks = [
                asyncio.create_task(self.watch_lag(), name="lag-watch"),
                asyncio.create_task(self.announce(server), name="load"),
            ]
            await server.serve(sockets=[listening])
            if tasks[1].done():
                tasks[1].result()
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
        """Loads the models and says so; a model that cannot be loaded ends the server."""
        try:
            await self.load()
        except BaseException:
            self.is_draining = server.should_exit = True
            raise
        gc.collect()
        gc.freeze()  # what was built to stay: looking it through again, every few thousand requests, held up the loop for 50 ms
        log.info("ready", url=f"{self.address}/v1", models=[model.name for model in self.catalog.models])

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

    def drain(self) -> None:
        """From now on new requests are refused; those under way go on."""
        self.is_draining = True
        log.info("draining")

    async def close(self) -> None:
        for model in self.catalog.models:
            await model.embedder.close()
        if self.keyring is not None:
            await self.keyring.close()
        self.road.close()


def built_catalog(config: Config, backends: dict[str, Backend], cache: VectorCache, metrics: Metrics) -> Catalog:
    built = []
    for row in config.models:
        refuse_misread_names(row)
        backend, settings = backend_of(row, backends)
        of_model = metrics.of_model(row.name)
        context = Context(row.name, config.limits, config.engine, of_model, config.store.folder)
        embedder = backend.build(settings, context)
        cached = Cached(embedder, cache, max_request_tokens=config.limits.max_request_tokens, metrics=of_model)
        built.append(Model(row, cached, embedder))
    return Catalog(built)


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
