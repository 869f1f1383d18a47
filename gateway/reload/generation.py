"""What was built from one configuration, and the requests that are answered by it.

A request is answered by the generation that it came to, from its first byte to its last, however many have followed since.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.access.access_control import AccessControl
from gateway.access.limits.limiter import Limiter
from gateway.api.admin import AdminService
from gateway.api.embeddings import EmbeddingsHandler
from gateway.config import Config
from gateway.embedding.catalog import Catalog
from gateway.embedding.model import Model
from gateway.errors import ConfigurationError


@dataclass(slots=True)
class Generation:
    """The parts in road order; `app` is the whole application. Used on the event loop alone.

    `dead_parts` names what only a restart of the process brings back, as `/livez` tells it.
    """

    config: Config
    access_control: AccessControl
    limiter: Limiter
    catalog: Catalog
    handler: EmbeddingsHandler
    admin: AdminService | None
    app: ASGIApp
    dead_parts: Callable[[], list[str]]
    num_requests: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.num_requests += 1
        self.idle.clear()
        try:
            await self.app(scope, receive, send)
        finally:
            self.num_requests -= 1
            if self.num_requests == 0:
                self.idle.set()

    async def start(self, before: "Generation | None" = None) -> None:
        """Starts what `before` has not started already; models are not loaded by it. Raises OperatorError."""
        if before is None or self.limiter.store is not before.limiter.store:
            await self.limiter.start()
        if before is None or self.access_control is not before.access_control:
            await self.access_control.start()

    def has(self, model: Model) -> bool:
        """Whether this model's embedder is one of its own."""
        return any(other.load_state is model.load_state for other in self.catalog.models)

    def raise_failure(self, begun: Iterable[Model]) -> None:
        """Raises the OperatorError of a model of `begun` whose configuration is wrong, or one of them where no model is left."""
        for model in begun:
            if isinstance(model.load_state.failure, ConfigurationError) and self.has(model):
                raise model.load_state.failure
        failures = [model.load_state.failure for model in self.catalog.models if model.load_state.failure is not None]
        if len(failures) == len(self.catalog.models):
            raise failures[0]

    def alone_in(self, others: Sequence["Generation"]) -> list[Model]:
        """The models that none of the others has."""
        return [model for model in self.catalog.models if not any(other.has(model) for other in others)]

    async def close(self, *, survivors: Sequence["Generation"] = ()) -> None:
        """Closes what none of the survivors has too."""
        for model in self.alone_in(survivors):
            await model.embedder.close()
        if all(self.access_control is not other.access_control for other in survivors):
            await self.access_control.close()
        if all(self.limiter.store is not other.limiter.store for other in survivors):
            await self.limiter.close()
        if self.admin is not None:
            self.admin.close()
        self.handler.close()

    async def wait_ended(self, *, timeout_seconds: float) -> None:
        """Returns once nothing is under way here; a client that will not read its reply is not waited for beyond the time."""
        if self.num_requests:
            try:
                await asyncio.wait_for(self.idle.wait(), timeout_seconds)
            except TimeoutError:
                return
