"""The loader: loads models at the start or on first use, retries failed loads with backoff, and unloads idle ones.

Models of this machine are loaded one at a time, in the order in which they were asked for; those of other machines side by side.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext, suppress
from typing import Any

from gateway.background import launch
from gateway.backoff import Backoff
from gateway.embedding.embedder import AnyEmbedder
from gateway.embedding.memory_budget import CATEGORY, MemoryBudget, may_go, stay_seconds
from gateway.embedding.model import Model
from gateway.embedding.model_use import ModelUse, kept
from gateway.errors import ModelLoading, ModelUnavailable, OperatorError
from gateway.log import get_logger

MAX_WAITING = 64  # requests that wait for one model's load; more would leave too few slots for other models' callers
RETRIES = Backoff(first_seconds=15.0, max_seconds=900.0)
WATCH_SECONDS = 1.0
LOOK_SECONDS = 0.1  # between two checks whether a start waits for something, or there is room
WAITING_SECONDS = 4.0  # at most, between two attempts to reach a server that was unavailable at the start
FAILED_SECONDS = 30.0  # Retry-After for a model that broke: about the time of a restart, which /livez asks for

log = get_logger()


class NoRoom(Exception):
    """A model is not loaded now: there is no room, or nobody waits for it any more."""


class Loader:
    """Loads and unloads models; belongs to one event loop. `budget` says what may be in memory.

    It calls `on_loaded` with each model that has become ready, and `on_unloaded` with each that is taken out of memory, and why:
    idle, budget or refused.
    """

    def __init__(
        self,
        on_loaded: Callable[[Model], None] = lambda _: None,
        on_unloaded: Callable[[Model, str], None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_loaded = on_loaded
        self.on_unloaded = on_unloaded
        self.clock = clock
        self.budget = MemoryBudget()
        self.has_loaded = False  # a model, so that requests are served
        self.turn = asyncio.Lock()  # of loads on this machine
        self.has_changed = asyncio.Event()  # a model's use has ended: there may be room for another
        self.tasks: set[asyncio.Task[None]] = set()

    async def load(self, model: Model) -> None:
        """Joins the current load, or begins one. Returns once it has ended or waits for something; the model's state says which.

        A caller may be cancelled; the load goes on.
        """
        await wait_settled(self.begin(model, "start"), model.embedder)

    def begin(self, model: Model, reason: str = "request") -> asyncio.Task[None]:
        load_state = model.load_state
        if load_state.task is None or load_state.task.done():
            reason = "retry" if load_state.num_failures else reason
            load_state.task = self.launch(self.load_once(model, reason), name=f"load-{model.name}")
            load_state.task.add_done_callback(lambda task: self.on_load_ended(model, task))
        return load_state.task

    def launch(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        task = launch(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def load_once(self, model: Model, reason: str) -> None:
        load_state = model.load_state
        async with self.turn_of(model):
            load_state.may_be_given_up = False
            if load_state.unloading is not None:
                await asyncio.wait([load_state.unloading])
            if model.embedder.health().state != "ready":  # else it was to be unloaded, and is needed after all
                log.info("loading_model", model=model.name, source=model.row.settings.get("source", model.row.backend))
                await self.make_room(model)
            is_known = id(load_state) in self.budget.loaded
            started = time.perf_counter()
            await self.start(model)
            if not is_known:
                load_state.load_seconds = time.perf_counter() - started
                self.on_start_ended(model, reason)

    def turn_of(self, model: Model) -> AbstractAsyncContextManager[object]:
        """Held during a model's load. Nothing waits for a model whose server may be unavailable."""
        model.load_state.may_be_given_up = model.unloadable is not None
        return self.turn if model.unloadable is not None else nullcontext()

    async def start(self, model: Model) -> None:
        """Starts the embedder. One that is loaded and refused, for its vectors or its size, is unloaded again."""
        try:
            await model.start()
            self.budget.refuse_larger(model, model.embedder.describe().num_bytes)
        except OperatorError:
            if may_go(model) and model.embedder.health().state == "ready":
                await self.unload(model, "refused")
            raise

    def on_start_ended(self, model: Model, reason: str) -> None:
        load_state, about = model.load_state, model.describe()
        load_state.has_described, load_state.reason = True, reason
        self.has_loaded = True
        load_state.loaded_at = load_state.used_at = self.clock()
        load_state.idle_since = time.time()
        load_state.failure = None  # only now: a retry still counts as failed, so that /readyz does not wait for it
        if about.num_bytes:
            self.budget.add(model)
        log.info(
            "model_loaded", model=model.name, runtime=about.runtime, device=about.device, precision=about.precision,
            fingerprint=about.fingerprint, seconds=round(load_state.load_seconds, 1), bytes=about.num_bytes or None, reason=reason,
        )  # fmt: skip
        self.on_loaded(model)

    def on_load_ended(self, model: Model, task: asyncio.Task[None]) -> None:
        load_state = model.load_state
        if task.cancelled() or load_state.task is not task:
            return
        error = task.exception()
        if isinstance(error, NoRoom):
            load_state.task = None
            return
        load_state.failure = error
        if error is None:
            load_state.num_failures = 0
            return
        load_state.num_failures += 1
        seconds = RETRIES.pause_seconds(load_state.num_failures)
        load_state.retry_at = self.clock() + seconds
        is_operational = isinstance(error, OperatorError)  # a defect is logged by its stack; its message may quote anything
        reason = {"reason": str(error)} if is_operational else {"exc_info": error}
        log.error("model_failed", model=model.name, category=model.category, retry_seconds=round(seconds, 1), **reason)

    async def make_room(self, model: Model) -> None:
        """Unloads models until this one fits the budget. Raises OperatorError if it never will, NoRoom if it does not now."""
        if model.unloadable is None or not self.budget.max_bytes:
            return
        num_bytes = await model.unloadable.plan_load()
        self.budget.refuse_larger(model, num_bytes)
        leaving: list[Model] = []
        model.load_state.may_be_given_up = True
        try:
            while self.budget.excess(model, num_bytes):
                if not self.budget.has_room_in_time(model, num_bytes) or _is_unwanted(model):
                    raise _no_room(model, num_bytes)
                await self.step_aside(model, num_bytes, leaving)
        finally:
            model.load_state.may_be_given_up = False
            for each in leaving:
                each.load_state.is_leaving = False

    async def step_aside(self, model: Model, num_bytes: int, leaving: list[Model]) -> None:
        """Unloads an idle model for `model`; if none is, lets no more requests into the least recently used, and waits a moment.

        `leaving` gets the models that are to go once their requests are answered.
        """
        settled = [each for each in self.budget.movable(model) if self.clock() >= each.load_state.loaded_at + stay_seconds(each)]
        if (idle := next((each for each in settled if each.load_state.is_idle), None)) is not None:
            await self.unload(idle, "budget")
            return
        missing = self.budget.excess(model, num_bytes)
        for each in settled:
            if missing > 0:
                missing -= each.num_bytes
                each.load_state.is_leaving = True
                leaving.append(each)
        self.has_changed.clear()
        with suppress(TimeoutError):  # a model may have stayed long enough by then
            await asyncio.wait_for(self.has_changed.wait(), LOOK_SECONDS)

    async def unload(self, model: Model, reason: str) -> None:
        """Takes a model out of memory. Nobody may use it. A caller may be cancelled; the unloading goes on."""
        load_state = model.load_state
        load_state.is_leaving = True  # from now on
        if load_state.unloading is None:
            load_state.unloading = self.launch(self.unload_once(model, reason), name=f"unload-{model.name}")
        await asyncio.wait([load_state.unloading])

    async def unload_once(self, model: Model, reason: str) -> None:
        load_state, about = model.load_state, model.embedder.describe()
        idle_seconds = round(self.clock() - load_state.used_at, 1)
        if load_state.task is not None and load_state.task.done():
            load_state.task = None
        try:
            if model.unloadable is not None:
                await model.unloadable.unload()
        finally:
            self.budget.remove(model)
            load_state.idle_since, load_state.is_leaving, load_state.unloading = None, False, None
            self.has_changed.set()
            log.info("model_unloaded", model=model.name, reason=reason, bytes=about.num_bytes, idle_seconds=idle_seconds)
            self.on_unloaded(model, reason)

    async def ensure_ready(self, model: Model, name: str, *, deadline: float) -> None:
        """Returns at once if the model can serve. If it is loaded on first use, waits for that, until `deadline` at most.

        `name` is the model's name in the request; `deadline` is on the clock of `time.monotonic`.
        Raises ModelLoading or ModelUnavailable.
        """
        if can_serve(model):
            return
        if model.row.load == "first_use" and not model.is_broken:
            await self.wait_for_load(model, name, deadline)
        match model.state:
            case "failed":
                reason = "It has stopped working." if model.is_broken else "It could not be loaded."
                raise ModelUnavailable(reason, retry_after_seconds=self.next_try_seconds(model))
            case "loading" | "unloaded":
                raise ModelLoading(name)
        if model.load_state.is_leaving:
            raise ModelLoading(name)

    async def acquire(self, model: Model, name: str, *, deadline: float) -> ModelUse:
        """Does what `ensure_ready` does. The model stays loaded until the caller releases its use."""
        await self.ensure_ready(model, name, deadline=deadline)
        return self.enter(model)

    def enter(self, model: Model) -> ModelUse:
        """A use of a model that `can_serve`."""
        return ModelUse(model, clock=self.clock, on_idle=self.has_changed.set)

    def keep(self, models: Iterable[Model]) -> AbstractContextManager[None]:
        """A block in which the models stay loaded, once they are."""
        return kept(models, on_idle=self.has_changed.set)

    def next_try_seconds(self, model: Model) -> float:
        """Seconds until a failed model may serve again. An embedder that waits for another server retries by itself."""
        if model.load_state.failure is not None:
            return 0.0 if model.load_state.is_loading else max(0.0, model.load_state.retry_at - self.clock())
        return FAILED_SECONDS if model.is_broken else WAITING_SECONDS

    async def wait_for_load(self, model: Model, name: str, deadline: float) -> None:
        load_state = model.load_state
        if not load_state.is_loading and load_state.failure is not None and self.clock() < load_state.retry_at:
            return
        if load_state.num_waiting >= MAX_WAITING:
            raise ModelLoading(name)
        load_state.num_waiting += 1
        try:
            task = self.begin(model)
            await asyncio.wait_for(wait_settled(task, model.embedder), timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            pass  # the model's state decides the answer to the request
        finally:
            load_state.num_waiting -= 1
            self.give_up_unwanted(model)

    def give_up_unwanted(self, model: Model) -> None:
        """Cancels a load that has not begun and that nobody waits for any more: it would drive out another model."""
        load_state = model.load_state
        if _is_unwanted(model) and load_state.may_be_given_up and load_state.task is not None and not load_state.task.done():
            load_state.task.cancel()
            load_state.task, load_state.may_be_given_up = None, False

    async def watch(self, models: Callable[[], Iterable[Model]]) -> None:
        """Retries failed loads, and unloads idle models, for ever.

        A model with `load = "first_use"` is retried by its next request instead.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for model in models():
                if model.row.load == "start" and model.load_state.failure is not None and self.clock() >= model.load_state.retry_at:
                    self.begin(model, "retry")
            await self.unload_idle()

    async def unload_idle(self) -> None:
        """Unloads the models that were idle for as long as their rows say, and those above a budget that was made smaller."""
        for model in self.budget.movable():
            after = model.row.unload_after
            is_over = after is not None and self.clock() - model.load_state.used_at >= after
            if (is_over or self.budget.excess()) and model.load_state.is_idle:
                await self.unload(model, "idle" if is_over else "budget")

    def adopt(self, models: Iterable[Model], max_bytes: int) -> None:
        """Applies a new configuration: its rows, and its budget. A model that was too large is tried again by its next request."""
        self.budget.adopt(models)
        if max_bytes != self.budget.max_bytes:
            self.budget.max_bytes = max_bytes
            for model in models:
                if getattr(model.load_state.failure, "category", "") == CATEGORY:
                    model.load_state.retry_at = self.clock()
        self.has_changed.set()

    def forget(self, model: Model) -> None:
        """The model's embedder was closed."""
        self.budget.remove(model)
        self.has_changed.set()

    async def close(self) -> None:
        """Cancels the current loads."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def can_serve(model: Model) -> bool:
    """Whether requests may use the model now."""
    return not model.load_state.is_leaving and model.state == "ready"


def _is_unwanted(model: Model) -> bool:
    """Whether nobody waits for the load of a model that requests load."""
    return model.row.load == "first_use" and not model.load_state.num_waiting


def _no_room(model: Model, num_bytes: int) -> Exception:
    """The error of a load for which there is no room now. A model that has to be loaded is tried again by itself."""
    if model.row.load == "first_use":
        log.info("no_room_for_model", model=model.name, bytes=num_bytes)
        return NoRoom()
    kept = f"batches keep other models loaded, so that {num_bytes:,} bytes are not free"
    return OperatorError(f"models[{model.name}]: {kept}", category=CATEGORY)


async def wait_settled(task: asyncio.Task[None], embedder: AnyEmbedder) -> None:
    """Returns once an embedder's start has ended, or waits for something unavailable. Never raises the start's own error."""
    while not task.done() and not embedder.health().category:
        await asyncio.wait([task], timeout=LOOK_SECONDS)
