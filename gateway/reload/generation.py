"""A generation: the parts built from one configuration, and the number of requests that use them.

A request stays with the generation in effect when it arrived, from its first byte to its last, however many follow.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from litestar.types import Receive, Scope, Send

from gateway.access.access_control import AccessControl
from gateway.access.limits.limiter import Limiter
from gateway.api.admin import AdminService
from gateway.api.batch_road import ConfiguredRoad
from gateway.api.inference import InferenceHandler
from gateway.api.middleware import Edge
from gateway.config import Config
from gateway.embedding.catalog import Catalog
from gateway.embedding.model import Model
from gateway.errors import ConfigurationError
from gateway.files.store import FileStore


@dataclass(slots=True)
class Generation:
    """The parts in the order a request passes them; `app` is the whole application. Used on the event loop only.

    `number` is unique in the process, and later generations have higher ones. `dead_parts` names the dead parts that only a restart
    of the process brings back, as `/livez` shows them.
    """

    config: Config
    access_control: AccessControl
    limiter: Limiter
    catalog: Catalog
    handler: InferenceHandler
    admin: AdminService | None
    files: FileStore | None
    batch_road: ConfiguredRoad
    app: Edge
    dead_parts: Callable[[], list[str]]
    number: int
    num_requests: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.batch_road.hold, self.batch_road.release = self.hold, self.release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.hold()
        try:
            await self.app(scope, receive, send)
        finally:
            self.release()

    def hold(self) -> None:
        """Keeps the parts open until `release`."""
        self.num_requests += 1
        self.idle.clear()

    def release(self) -> None:
        self.num_requests -= 1
        if self.num_requests == 0:
            self.idle.set()

    async def start(self, before: "Generation | None" = None) -> None:
        """Starts the parts that `before` does not share. Loads no models. Raises OperatorError."""
        if before is None or self.limiter.store is not before.limiter.store:
            await self.limiter.start()
        if before is None or self.access_control is not before.access_control:
            await self.access_control.start()
        if self.files is not None and (before is None or self.files is not before.files):
            await self.files.start()

    def has(self, model: Model) -> bool:
        """Whether this generation has the model's embedder."""
        return any(other.load_state is model.load_state for other in self.catalog.models)

    def raise_failure(self, begun: Iterable[Model]) -> None:
        """Raises the ConfigurationError of a model in `begun` that this generation has; the first failure if every model failed."""
        for model in begun:
            if isinstance(model.load_state.failure, ConfigurationError) and self.has(model):
                raise model.load_state.failure
        failures = [model.load_state.failure for model in self.catalog.models if model.load_state.failure is not None]
        if len(failures) == len(self.catalog.models):
            raise failures[0]

    def alone_in(self, others: Sequence["Generation"]) -> list[Model]:
        """Returns the models that none of `others` has."""
        return [model for model in self.catalog.models if not any(other.has(model) for other in others)]

    async def close(self, *, survivors: Sequence["Generation"] = ()) -> None:
        """Closes the parts that no survivor shares."""
        for model in self.alone_in(survivors):
            await model.embedder.close()
            self.catalog.loader.forget(model)
        if self.files is not None and all(self.files is not other.files for other in survivors):
            await self.files.close()
        if all(self.access_control is not other.access_control for other in survivors):
            await self.access_control.close()
        if all(self.limiter.store is not other.limiter.store for other in survivors):
            await self.limiter.close()
        if self.admin is not None:
            self.admin.close()
        self.handler.close()
        self.batch_road.close()

    async def wait_ended(self, *, timeout_seconds: float) -> None:
        """Waits until no request is in flight, `timeout_seconds` at most: a client may never read its response."""
        if self.num_requests:
            try:
                await asyncio.wait_for(self.idle.wait(), timeout_seconds)
            except TimeoutError:
                return
