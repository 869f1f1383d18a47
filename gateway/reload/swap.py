"""The swap of generations: a new one takes effect at once, and the old one is closed after its last request."""

import asyncio
import gc
from collections.abc import Callable
from functools import partial
from typing import Protocol

from gateway.background import BackgroundTask
from gateway.config import Config
from gateway.embedding.loading import Loader
from gateway.embedding.model import Model
from gateway.errors import OperatorError
from gateway.malloc import release_memory
from gateway.metrics import Metrics
from gateway.reload.generation import Generation

LOAD_SECONDS = 3600.0  # to load a new model: twice what compiling may take, as the model may wait for its turn


class Followers(Protocol):
    """The other processes of this gateway, which serve the same generation: none, unless it has several."""

    async def prepare(self, generation: Generation) -> None:
        """Awaited before a generation takes effect. Raises OperatorError if a process cannot serve it."""

    def withdraw(self, generation: Generation) -> None:
        """Called if a generation that was prepared does not take effect."""

    def commit(self, generation: Generation) -> None:
        """Called right after a generation took effect."""

    def update(self) -> None:
        """Called after a model was loaded."""


class NoFollowers(Followers):
    """Of a gateway that is one process."""

    async def prepare(self, generation: Generation) -> None:
        pass

    def withdraw(self, generation: Generation) -> None:
        pass

    def commit(self, generation: Generation) -> None:
        pass

    def update(self) -> None:
        pass


class GenerationSwap:
    """`build` makes a generation that shares unchanged parts with the one before. `on_switched` gets both, right after a swap."""

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
        self.followers: Followers = NoFollowers()
        self.retired: list[Generation] = []  # may still answer requests that arrived before the swap
        self.retirement: BackgroundTask | None = None  # the latest task; each waits for the one before
        self.has_leaked = False  # a retirement died: what it should have closed is open until the process ends

    async def renew(self, config: Config) -> None:
        """Atomic swap: the generation of `config` replaces the one in effect as a whole, or not at all.

        New models are loaded beside the old ones, so for a while both take memory. Raises OperatorError if any part cannot work;
        nothing has changed then.
        """
        before = self.current
        after = self.build(config, before)
        replaced = [model.load_state for model in before.catalog.models if not after.has(model)]
        try:
            for load_state in replaced:
                load_state.is_replaced = True
            await after.start(before)
            with self.loader.budget.widened(config.engine.memory_budget):
                for model in after.catalog.models:
                    await self.make_ready(model, is_new=not before.has(model))
            self.loader.budget.refuse_excess(after.catalog.models, config.engine.memory_budget)
            await self.followers.prepare(after)
        except BaseException:
            for load_state in replaced:
                load_state.is_replaced = False
            self.followers.withdraw(after)
            self.retire(after)
            raise
        self.current = after
        self.on_switched(before, after)
        self.followers.commit(after)
        self.retire(before)

    async def make_ready(self, model: Model, *, is_new: bool) -> None:
        """Loads or checks a model before its configuration takes effect. A shared model that had failed already stops nothing."""
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
        """Closes what only `generation` has, after its requests and those of all earlier generations."""
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
        gc.unfreeze()  # else this generation's reference cycles would never be collected
        gc.collect()
        gc.freeze()
        if gone:
            await asyncio.to_thread(release_memory)

    async def close(self) -> None:
        """Closes every generation, even if requests are in flight."""
        if self.retirement is not None:
            await self.retirement.close()
        closed: list[Generation] = []
        for generation in (self.current, *self.retired):
            await generation.close(survivors=closed)
            closed.append(generation)
