"""A front's part of one generation: what it builds from the configuration that the engine process tells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from litestar.types import Receive, Scope, Send

from gateway.access.access_control import RequestAccess
from gateway.access.admission import Admission
from gateway.access.open_access import OpenAccess
from gateway.api import doors as other_doors
from gateway.api.middleware import Edge
from gateway.build import build_doors
from gateway.calls.engine_message import Configure, ModelState
from gateway.config import Config
from gateway.embedding.catalog import Catalog
from gateway.embedding.row_ranges import read_ranges
from gateway.metrics import Metrics
from gateway.processes.engine_client import EngineClient
from gateway.processes.engine_embedder import EngineEmbedder, EngineLoader, EngineModel
from gateway.processes.front_handler import FrontHandler
from gateway.processes.front_probes import FrontProbes
from gateway.processes.relay import Relay
from gateway.processes.remote_access import RemoteAccess
from gateway.processes.remote_lease import RemoteLimiter
from gateway.reload.diff import embedder_key
from gateway.server.log_sampler import LogSampler
from gateway.tracing import Tracing

PROBE_METHODS = dict.fromkeys(("/livez", "/health", "/readyz", "/metrics"), "GET, HEAD, OPTIONS")


@dataclass(slots=True)
class FrontGeneration:
    """The parts of one configuration, `number` in the engine process. `on_idle` is called after the last request, once retired."""

    number: int
    config: Config
    client: EngineClient
    embedders: list[EngineEmbedder]
    access: RequestAccess
    handler: FrontHandler
    app: Edge
    on_idle: Callable[["FrontGeneration"], None]
    num_requests: int = 0
    is_retired: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.num_requests += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.num_requests -= 1
            if self.is_retired and not self.num_requests:
                self.on_idle(self)

    def retire(self) -> None:
        """`on_idle` follows, after the last request."""
        self.is_retired = True
        if not self.num_requests:
            self.on_idle(self)

    def show(self, states: Mapping[int, ModelState]) -> None:
        for place, state in states.items():
            self.embedders[place].show(state)

    def forget_callers(self) -> None:
        if isinstance(self.access, RemoteAccess):
            self.access.forget()

    def close(self) -> None:
        for embedder in self.embedders:
            embedder.forget()
        if isinstance(self.access, RemoteAccess):
            self.access.close()
        self.handler.close()


@dataclass(frozen=True, slots=True)
class FrontBuilder:
    """Has the front's own parts, which outlive each generation."""

    admission: Admission
    metrics: Metrics
    sampler: LogSampler
    tracing: Tracing | None
    is_leaving: Callable[[], bool]
    is_draining: Callable[[], bool]
    on_idle: Callable[[FrontGeneration], None]

    def build(
        self, config: Config, client: EngineClient, told: Configure | None = None, before: FrontGeneration | None = None
    ) -> FrontGeneration:
        """Builds the parts, of what the engine process has told. Tokenizers of `before` are kept where they are the same.

        Raises ConfigurationError.
        """
        number, methods, states = (told.generation, told.methods, told.models) if told is not None else (0, PROBE_METHODS, [])
        has_cache = config.cache.max_bytes > 0
        embedders = [
            EngineEmbedder(row.name, place, number, client, config.limits, has_cache=has_cache)
            for place, row in enumerate(config.models)
        ]
        for embedder, state in zip(embedders, states, strict=False):
            embedder.show(state, self.same_in(before, config, embedder.place))
        rows = zip(config.models, embedders, strict=True)
        models = [EngineModel(row, embedder, row_ranges=read_ranges(row)) for row, embedder in rows]
        access: RequestAccess = OpenAccess() if config.auth.mode == "none" else RemoteAccess(client)
        handler = FrontHandler(
            access=access,
            catalog=Catalog(models, EngineLoader()),
            admission=self.admission,
            limiter=RemoteLimiter(config.limits, client),
            settings=config.server,
            metrics=self.metrics,
        )
        return FrontGeneration(
            number, config, client, embedders, access, handler, self.build_app(config, client, handler, methods), self.on_idle
        )

    def same_in(self, before: FrontGeneration | None, config: Config, place: int) -> EngineEmbedder | None:
        """The embedder of the same model in the generation before, if all settings that tokenising depends on are equal."""
        if before is None:
            return None
        key = embedder_key(config, config.models[place])
        rows = zip(before.config.models, before.embedders, strict=True)
        return next((embedder for row, embedder in rows if embedder_key(before.config, row) == key), None)

    def build_app(self, config: Config, client: EngineClient, handler: FrontHandler, methods: Mapping[str, str]) -> Edge:
        doors = build_doors(handler, config)
        relay = FrontProbes(Relay(client), has_engine=lambda: client.takes_calls, is_leaving=self.is_leaving)
        formats: dict[str, Any] = {**other_doors.error_formats(config.doors), **{door.path: door.errors for door in doors}}
        return Edge(
            relay,
            settings=config.server,
            metrics=self.metrics,
            sampler=self.sampler,
            is_leaving=self.is_leaving,
            is_draining=self.is_draining,
            methods={**dict.fromkeys((door.path for door in doors), "POST, OPTIONS"), **methods},
            doors={door.path: handler.application(door) for door in doors},
            formats=formats,
            has_tei=config.doors.tei,
            tracing=self.tracing,
        )
