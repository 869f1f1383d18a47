"""One gateway's life: it starts, serves, drains and stops. What it serves by is built in `gateway/build.py`."""

import asyncio
import gc
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial

from litestar.types import Receive, Scope, Send

from gateway import log as logging
from gateway.access.access_control import AccessControl
from gateway.access.admission import Admission
from gateway.api.error_handler import error_response
from gateway.api.memory import MemoryWatch, malloc_trim
from gateway.api.page.figures import Figures
from gateway.background import BackgroundTask, launch
from gateway.build import BUILTIN_BACKENDS, GenerationBuilder
from gateway.config import Config, ConfigSource, ModelRow, local_url
from gateway.embedding.backend import Backend, BoundBackend
from gateway.embedding.cache import VectorCache
from gateway.embedding.catalog import Catalog
from gateway.embedding.loading import Loader
from gateway.embedding.model import Model
from gateway.embedding.registry import installed_backends
from gateway.log import get_logger
from gateway.metrics import Metrics
from gateway.reload.generation import Generation
from gateway.reload.swap import GenerationSwap
from gateway.reload.watcher import ConfigWatcher
from gateway.server.listening import Listening
from gateway.server.log_sampler import LogSampler
from gateway.server.loop_lag import watch_loop_lag
from gateway.server.metrics_port import open_metrics_port
from gateway.server.server import Server
from gateway.tracing import Tracing

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
        self.addresses: list[str] = []  # once it listens
        self.metrics = Metrics()
        self.tracing = Tracing(config.traces) if config.traces.endpoint else None
        self.figures = Figures(self.metrics)
        self.sampler = LogSampler(self.metrics)
        self.cache = VectorCache(config.cache.max_bytes)
        self.metrics.models.cache_bytes.set_function(lambda: self.cache.num_bytes)
        self.admission = Admission(max_requests=config.server.max_concurrent_requests, max_bytes=config.server.max_buffered_bytes)
        self.loader = Loader(self.publish_model)
        self.builder = GenerationBuilder(
            backends=installed_backends(backends), loader=self.loader, cache=self.cache, admission=self.admission,
            metrics=self.metrics, figures=self.figures, sampler=self.sampler, tracing=self.tracing,
            is_leaving=lambda: self.is_shutting_down, is_draining=lambda: self.is_draining, dead_parts=self.dead_parts,
        )  # fmt: skip
        first, build = self.builder.build(config), self.builder.build
        self.swap = GenerationSwap(first, build=build, loader=self.loader, on_switched=self.on_swap, metrics=self.metrics)
        self.watcher: ConfigWatcher | None = None
        if source is not None:
            self.watcher = ConfigWatcher(source, current=lambda: self.config, renew=self.swap.renew, metrics=self.metrics)
        self.tasks = self.build_tasks()
        self.metrics.process.background_dead.set_function(lambda: len(self.generation.dead_parts()))

    def build_tasks(self) -> list[BackgroundTask]:
        """What runs as long as it serves."""
        tasks = [
            BackgroundTask("lag-watch", partial(watch_loop_lag, self.metrics)),
            BackgroundTask("load-watch", partial(self.loader.watch, lambda: self.catalog.models)),
        ]
        if self.watcher is not None:
            tasks.append(BackgroundTask("reload", self.watcher.watch))
        if trim := malloc_trim():
            tasks.append(BackgroundTask("memory-watch", MemoryWatch(self.admission, trim).watch))
        return tasks

    def dead_parts(self) -> list[str]:
        """What of the process itself died, and only a restart brings back."""
        dead = [task.name for task in self.tasks if task.death is not None]
        dead += ["retire"] if self.swap.has_leaked else []
        return dead + (["metrics"] if not self.metrics.is_served() else [])

    @property
    def generation(self) -> Generation:
        return self.swap.current

    @property
    def config(self) -> Config:
        return self.generation.config

    @property
    def access_control(self) -> AccessControl:
        return self.generation.access_control

    @property
    def catalog(self) -> Catalog:
        return self.generation.catalog

    def bind(self, row: ModelRow) -> BoundBackend:
        """What commands ask of a row. Raises ConfigurationError."""
        return self.builder.bind(self.config, row)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application: whatever generation is in effect when a request comes answers it."""
        await self.generation(scope, receive, send)

    async def start(self) -> None:
        """Reads the keys. Models are loaded by `load`, so that probes are answered meanwhile. Raises OperatorError."""
        await self.generation.start()
        self.access_control.warn(addresses=self.config.server.addresses)

    async def load(self) -> None:
        """Loads the models that are loaded at the start; one that cannot be, or waits for what is unavailable, holds up no other.

        Raises OperatorError where the configuration itself is wrong, or where nothing at all is left to be served.
        """
        models = self.catalog.models
        await asyncio.gather(*(self.loader.load(model) for model in models if model.row.load == "start"))
        self.generation.raise_failure(models)

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
            after.access_control.warn(addresses=config.server.addresses)

    async def serve(self) -> None:
        """Listens, loads, and serves until a signal. Raises OperatorError where it cannot begin."""
        settings = self.config.server
        self.server = server = Server(
            self, settings, metrics=self.metrics, render_error=error_response, sampler=self.sampler,
            on_leave=self.begin_shutdown, on_drain=self.drain, is_idle=lambda: self.admission.num_requests == 0,
        )  # fmt: skip
        listening = Listening(settings.addresses, settings.port, mode=settings.unix_socket_mode)
        self.addresses = listening.urls
        loading: asyncio.Task[None] | None = None
        try:
            await self.start()
            open_metrics_port(self.metrics, self.config.metrics, settings)
            loading = launch(self.announce(server), name="load")
            for task in self.tasks:
                task.start()
            with self.watcher.on_hang_up(self.stop) if self.watcher is not None else nullcontext():
                await server.serve(sockets=listening.sockets)
            if loading.done():
                loading.result()
            log.info("stopped")
        finally:
            if loading is not None:
                loading.cancel()
                await asyncio.wait([loading])
            await asyncio.gather(*(task.close() for task in self.tasks))
            await self.close()
            listening.close()

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
        urls = [f"{url}/v1" if url.startswith("http") else url for url in self.addresses]
        more: dict[str, object] = {"others": urls[1:]} if urls[1:] else {}
        if self.config.page.enabled and self.address.startswith("http"):
            more["page"] = f"{local_url(self.address)}/"
        log.info("ready", url=urls[0], models=serving, **more)

    @property
    def address(self) -> str:
        """The first that a browser can open, such as http://127.0.0.1:8000, else a Unix socket's; empty until it listens."""
        return next((url for url in self.addresses if url.startswith("http")), "".join(self.addresses[:1]))

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
        self.generation.limiter.queue.close()
        log.info("draining")

    async def close(self) -> None:
        await self.figures.close()
        await asyncio.to_thread(self.metrics.close)
        self.sampler.end_window()
        await self.loader.close()
        await self.swap.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
