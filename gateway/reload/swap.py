"""The generation in effect, how another one takes its place, and what becomes of those before it."""

import asyncio
import gc
from collections.abc import Callable
from functools import partial

from gateway.background import BackgroundTask
from gateway.config import Config
from gateway.embedding.loading import Loader
from gateway.embedding.model import Model
from gateway.errors import OperatorError
from gateway.metrics import Metrics
from gateway.reload.generation import Generation

LOAD_SECONDS = 3600.0  # for a model of a new configuration: twice what compiling may take, as it may wait for its turn


class GenerationSwap:
    """`build` makes a generation that shares with the one before what is the same; `on_switched` is told both, at once after."""

    def __init__(
        self,
        first: Generation,
        *,
        build: Callable[[Config, Generation], Generation],
        loader: Loader,
        on_switched: Callable[[Generation, Generation], None],
        metrics: Metrics,
    ) -> None:
        self.current = first
        self.build = build
        self.loader = loader
        self.on_switched = on_switched
        self.metrics = metrics
        self.retired: list[Generation] = []  # which may still answer requests that came before
        self.retirement: BackgroundTask | None = None  # the latest; each waits for the one before
        self.has_leaked = False  # a retirement died, and what it should have closed is held until the process ends

    async def renew(self, config: Config) -> None:
        """The generation of `config` takes the place of the one in effect, whole or not at all.

        New models are loaded beside the old ones, so for a while both take memory. Raises OperatorError where anything of it cannot
        work; nothing has changed then.
        """
        before = self.current
        after = self.build(config, before)
        try:
            await after.start(before)
            for model in after.catalog.models:
                await self.make_ready(model, is_new=not before.has(model))
        except BaseException:
            self.retire(after)
            raise
        self.current = after
        self.on_switched(before, after)
        self.retire(before)

    async def make_ready(self, model: Model, *, is_new: bool) -> None:
        """What must be true of a model before its configuration comes into effect. One that failed before may go on failing."""
        if model.row.load == "start" and (is_new or model.state == "unloaded"):
            try:
                await asyncio.wait_for(self.loader.load(model), LOAD_SECONDS)
            except TimeoutError:
                raise OperatorError(f"models[{model.name}]: it was not loaded within {LOAD_SECONDS:g} seconds") from None
            if isinstance(model.load_state.failure, OperatorError):
                raise model.load_state.failure
            if model.state != "ready":
                reason = type(model.load_state.failure).__name__ if model.load_state.failure else model.embedder.health().detail
                raise OperatorError(f"models[{model.name}]: it cannot be loaded: {reason}")
        elif model.state == "ready":
            model.check()

    def retire(self, generation: Generation) -> None:
        """Closes what only `generation` has, once its requests and those of all before it have ended."""
        self.retired.append(generation)
        work = partial(self.retiring, generation, self.retirement)
        self.retirement = BackgroundTask("retire", work, may_end=True, on_death=self.on_leak)
        self.retirement.start()

    def on_leak(self) -> None:
        self.has_leaked = True

    async def retiring(self, generation: Generation, earlier: BackgroundTask | None) -> None:
        if earlier is not None:
            await earlier.wait_ended()
        server = generation.config.server
        await generation.wait_ended(timeout_seconds=server.body_timeout_seconds + server.request_timeout_seconds)
        others = [self.current, *(other for other in self.retired if other is not generation)]
        gone = generation.alone_in(others)
        loads = [model.load_state.task for model in gone if model.load_state.task is not None]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        await generation.close(survivors=others)
        self.retired.remove(generation)
        for model in gone:
            if all(model.name != other.name for other in self.current.catalog.models):
                self.metrics.of_model(model.name).forget()
        gc.unfreeze()  # this generation with its cycles, which would else stay for ever
        gc.collect()
        gc.freeze()

    async def close(self) -> None:
        """Closes all there is, whether requests are under way or not."""
        if self.retirement is not None:
            await self.retirement.close()
        closed: list[Generation] = []
        for generation in (self.current, *self.retired):
            await generation.close(survivors=closed)
            closed.append(generation)
