"""The loader: loads models at the start or on first use, and retries failed loads with backoff."""

import asyncio
import time
from collections.abc import Callable, Iterable

from gateway.background import launch
from gateway.backoff import Backoff
from gateway.embedding.embedder import AnyEmbedder
from gateway.embedding.model import Model
from gateway.errors import ModelLoading, ModelUnavailable, OperatorError
from gateway.log import get_logger

MAX_WAITING = 64  # requests that wait for one model's first load; more would leave too few slots for other models' callers
RETRIES = Backoff(first_seconds=15.0, max_seconds=900.0)
WATCH_SECONDS = 1.0
LOOK_SECONDS = 0.1  # between two checks whether a start waits for something
WAITING_SECONDS = 4.0  # at most, between two attempts to reach a server that was unavailable at the start
FAILED_SECONDS = 30.0  # Retry-After for a model that broke: about the time of a restart, which /livez asks for

log = get_logger()


class Loader:
    """Loads models; belongs to one event loop. It calls `on_loaded` with each model that has become ready."""

    def __init__(self, on_loaded: Callable[[Model], None] = lambda _: None, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_loaded = on_loaded
        self.clock = clock
        self.tasks: set[asyncio.Task[None]] = set()

    async def load(self, model: Model) -> None:
        """Joins the current load, or begins one. Returns once it has ended or waits for something; the model's state says which.

        A caller may be cancelled; the load goes on.
        """
        await wait_settled(self.begin(model), model.embedder)

    def begin(self, model: Model) -> asyncio.Task[None]:
        load_state = model.load_state
        if load_state.task is None or load_state.task.done():
            load_state.task = launch(self.load_once(model), name=f"load-{model.name}")
            self.tasks.add(load_state.task)
            load_state.task.add_done_callback(lambda task: self.on_load_ended(model, task))
        return load_state.task

    async def load_once(self, model: Model) -> None:
        log.info("loading_model", model=model.name, source=model.row.settings.get("source", model.row.backend))
        started = time.perf_counter()
        await model.start()
        about = model.describe()
        log.info(
            "model_loaded", model=model.name, runtime=about.runtime, device=about.device, precision=about.precision,
            fingerprint=about.fingerprint, seconds=round(time.perf_counter() - started, 1),
        )  # fmt: skip
        model.load_state.failure = None  # only now: a retry still counts as failed, so that /readyz does not wait for it
        self.on_loaded(model)

    def on_load_ended(self, model: Model, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        load_state = model.load_state
        if task.cancelled():
            return
        load_state.failure = task.exception()
        if load_state.failure is None:
            load_state.num_failures = 0
            return
        load_state.num_failures += 1
        seconds = RETRIES.pause_seconds(load_state.num_failures)
        load_state.retry_at = self.clock() + seconds
        is_operational = isinstance(
            load_state.failure, OperatorError
        )  # a defect is logged by its stack; its message may quote anything
        reason = {"reason": str(load_state.failure)} if is_operational else {"exc_info": load_state.failure}
        log.error("model_failed", model=model.name, category=model.category, retry_seconds=round(seconds, 1), **reason)

    async def ensure_ready(self, model: Model, name: str, *, deadline: float) -> None:
        """Returns at once if the model can serve. If it is loaded on first use, waits for that, until `deadline` at most.

        `name` is the model's name in the request; `deadline` is on the clock of `time.monotonic`.
        Raises ModelLoading or ModelUnavailable.
        """
        if model.state == "ready":
            return
        if model.row.load == "first_use" and not model.is_broken:
            await self.wait_for_load(model, name, deadline)
        match model.state:
            case "failed":
                reason = "It has stopped working." if model.is_broken else "It could not be loaded."
                raise ModelUnavailable(reason, retry_after_seconds=self.next_try_seconds(model))
            case "loading" | "unloaded":
                raise ModelLoading(name)

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

    async def watch(self, models: Callable[[], Iterable[Model]]) -> None:
        """Retries failed loads, for ever. A model with `load = "first_use"` is retried by its next request instead."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for model in models():
                if model.row.load == "start" and model.load_state.failure is not None and self.clock() >= model.load_state.retry_at:
                    self.begin(model)

    async def close(self) -> None:
        """Cancels the current loads."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def wait_settled(task: asyncio.Task[None], embedder: AnyEmbedder) -> None:
    """Returns once an embedder's start has ended, or waits for something unavailable. Never raises the start's own error."""
    while not task.done() and not embedder.health().category:
        await asyncio.wait([task], timeout=LOOK_SECONDS)
