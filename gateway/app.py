"""The lifecycle of one gateway: start, serve, drain, stop. `gateway/build.py` builds the parts that answer requests."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from litestar.types import Receive, Scope, Send

from gateway import log as logging
from gateway.access.access_control import AccessControl
from gateway.access.admission import Admission
from gateway.api.error_handler import error_response
from gateway.api.memory_trim import MemoryWatch
from gateway.api.page.figures import Figures
from gateway.background import BackgroundTask, launch
from gateway.batches.service import BatchService
from gateway.build import BUILTIN_BACKENDS, GenerationBuilder
from gateway.config import Config, ConfigSource, ModelRow, local_url
from gateway.embedding.backend import Backend, BoundBackend
from gateway.embedding.cache import VectorCache
from gateway.embedding.catalog import Catalog
from gateway.embedding.loading import Loader
from gateway.embedding.model import Model
from gateway.embedding.registry import installed_backends
from gateway.log import get_logger
from gateway.malloc import malloc_trim
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
    """One gateway. The constructor checks the whole configuration, and opens and loads nothing.

    `generation` has the parts built from the configuration in effect. Other attributes belong to the process and outlive it.
    """

    def __init__(
        self, config: Config, backends: Iterable[Backend] = BUILTIN_BACKENDS, *, source: ConfigSource | None = None
    ) -> None:
        """`source` is what a reload reads. Raises ConfigurationError if any part of the configuration cannot work."""
        self.is_shutting_down = self.is_draining = False
        self.server: Server | None = None
        self.addresses: list[str] = []  # empty until it listens
        self.metrics = Metrics()
        self.tracing = Tracing(config.traces) if config.traces.endpoint else None
        self.figures = Figures(self.metrics)
        self.sampler = LogSampler(self.metrics)
        self.cache = VectorCache(config.cache.max_bytes)
        self.metrics.models.cache_bytes.set_function(lambda: self.cache.num_bytes)
        self.admission = Admission(max_requests=config.server.max_concurrent_requests, max_bytes=config.server.max_buffered_bytes)
        self.loader = Loader(self.publish_model, self.publish_unload)
        self.loader.budget.max_bytes = config.engine.memory_budget
        self.metrics.models.memory_budget_bytes.set_function(lambda: self.loader.budget.max_bytes)
        self.batches = BatchService(
            config.store,
            files=lambda: self.generation.files,
            road=lambda: self.generation.batch_road,
            settings=lambda: self.config.batches,
            metrics=self.metrics.batches,
        )
        self.builder = GenerationBuilder(
            backends=installed_backends(backends), loader=self.loader, cache=self.cache, admission=self.admission,
            batches=self.batches, metrics=self.metrics, figures=self.figures, sampler=self.sampler, tracing=self.tracing,
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
        """Returns the background tasks that run while the gateway serves."""
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
        """Returns the names of the process's own parts that died and that only a restart brings back."""
        dead = [task.name for task in self.tasks if task.death is not None]
        dead += ["batches"] if self.batches.has_died else []
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
        """Returns a row's backend, for commands. Raises ConfigurationError."""
        return self.builder.bind(self.config, row)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application: the generation in effect when a request arrives answers it."""
        await self.generation(scope, receive, send)

    async def start(self) -> None:
        """Reads the keys. Models are loaded later, by `load`, so that probes are answered meanwhile. Raises OperatorError."""
        await self.generation.start()
        self.access_control.warn(addresses=self.config.server.addresses)

    async def load(self) -> None:
        """Loads, side by side, the models to load at the start. One that fails, or waits for another server, delays no other.

        Raises OperatorError if the configuration itself is wrong, or if every model failed.
        """
        models = self.catalog.models
        await asyncio.gather(*(self.loader.load(model) for model in models if model.row.load == "start"))
        self.generation.raise_failure(models)

    def publish_model(self, model: Model) -> None:
        about = model.describe()
        metrics = self.metrics.of_model(model.name)
        metrics.record_load(
            source=about.source, runtime=about.runtime, device=about.device, precision=about.precision,
            dimensions=str(about.dimensions), fingerprint=about.fingerprint, fidelity=about.fidelity,
        )  # fmt: skip
        metrics.record_memory(about.num_bytes, model.load_state.reason)
        self.swap.followers.update()

    def publish_unload(self, model: Model, reason: str) -> None:
        self.metrics.of_model(model.name).record_unload(reason)
        self.swap.followers.update()

    def on_swap(self, before: Generation, after: Generation) -> None:
        """Applies the new configuration to the process's own parts. It runs between two requests: nothing here waits."""
        config = after.config
        self.admission.max_requests, self.admission.max_bytes = (
            config.server.max_concurrent_requests,
            config.server.max_buffered_bytes,
        )
        self.cache.resize(config.cache.max_bytes)
        self.loader.adopt(after.catalog.models, config.engine.memory_budget)
        if self.server is not None:
            self.server.apply_settings(config.server)
            self.server.table.configure(config.server)
        if config.log != before.config.log:
            logging.configure(level=config.log.level, line_format=config.log.format)
        if config.auth != before.config.auth:
            after.access_control.warn(addresses=config.server.addresses)

    async def serve(self) -> None:
        """Listens, loads, and serves until a signal. Raises OperatorError if it cannot start."""
        settings = self.config.server
        self.server = server = Server(
            self, settings, metrics=self.metrics, render_error=error_response, sampler=self.sampler,
            on_leave=self.begin_shutdown, on_drain=self.drain, is_idle=lambda: self.admission.num_requests == 0,
        )  # fmt: skip
        listening = Listening(settings.addresses, settings.port, mode=settings.unix_socket_mode)
        self.addresses = listening.urls
        try:
            async with self.running(on_ready=self.announce, on_failed=partial(server.stop, skip_delay=True)):
                open_metrics_port(self.metrics, self.config.metrics, settings)
                with self.watcher.on_hang_up(self.stop) if self.watcher is not None else nullcontext():
                    await server.serve(sockets=listening.sockets)
            log.info("stopped")
        finally:
            listening.close()

    @asynccontextmanager
    async def running(self, *, on_ready: Callable[[], None], on_failed: Callable[[], None]) -> AsyncIterator[None]:
        """The life of all parts but the server: starts them, loads the models beside the body, and closes everything after it.

        `on_ready` is called once the models are loaded, `on_failed` if that raises: the body then ends, and so does this with the
        error. Raises OperatorError.
        """
        loading: asyncio.Task[None] | None = None
        try:
            await self.start()
            loading = launch(self.load_all(on_ready, on_failed), name="load")
            for task in self.tasks:
                task.start()
            self.batches.start()
            yield
            if loading.done():
                loading.result()
        finally:
            if loading is not None:
                loading.cancel()
                await asyncio.wait([loading])
            await asyncio.gather(*(task.close() for task in self.tasks), self.batches.stop())
            await self.close()

    async def load_all(self, on_ready: Callable[[], None], on_failed: Callable[[], None]) -> None:
        try:
            await self.load()
        except BaseException:
            on_failed()
            raise
        gc.collect()
        gc.freeze()  # long-lived objects: scanning them again, every few thousand requests, blocked the loop for 50 ms
        on_ready()

    def announce(self) -> None:
        """Logs `ready`."""
        serving = [model.name for model in self.catalog.models if model.state != "failed"]
        urls = [f"{url}/v1" if url.startswith("http") else url for url in self.addresses]
        more: dict[str, object] = {"others": urls[1:]} if urls[1:] else {}
        if self.config.page.enabled and self.address.startswith("http"):
            more["page"] = f"{local_url(self.address)}/"
        log.info("ready", url=urls[0], models=serving, **more)

    @property
    def address(self) -> str:
        """The first HTTP address, as http://127.0.0.1:8000, for browsers; else a Unix socket's. Empty until it listens."""
        return next((url for url in self.addresses if url.startswith("http")), "".join(self.addresses[:1]))

    def stop(self) -> None:
        """Handles SIGTERM: finishes the requests in flight, then ends `serve`. Call it only on the loop that serves."""
        if self.server is not None:
            self.server.stop()

    def begin_shutdown(self) -> None:
        """From now on `/readyz` fails, and each response closes its connection. Requests are still served."""
        self.is_shutting_down = True
        log.info("leaving", seconds=self.server.drain_delay_seconds if self.server else 0)

    def drain(self) -> None:
        """From now on new requests are refused; those in flight continue."""
        self.is_shutting_down = self.is_draining = True
        self.generation.limiter.queue.close()
        self.batches.runner.stop()
        log.info("draining")

    async def close(self) -> None:
        await self.figures.close()
        await asyncio.to_thread(self.metrics.close)
        self.sampler.end_window()
        await self.loader.close()
        await self.batches.close()
        await self.swap.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
