"""When models are loaded: at the start or on first use, and again some time after that failed."""

import asyncio
import time
from collections.abc import Callable, Iterable

from gateway.background import launch
from gateway.backoff import Backoff
from gateway.embedding.embedder import AnyEmbedder
from gateway.embedding.model import Model
from gateway.errors import ModelLoading, ModelUnavailable, OperatorError
from gateway.log import get_logger

MAX_WAITING = 64  # requests a model that is loaded on first use; more would take the places of other models' callers
RETRIES = Backoff(first_seconds=15.0, max_seconds=900.0)
WATCH_SECONDS = 1.0
LOOK_SECONDS = 0.1  # between two looks at what a start waits for
WAITING_SECONDS = 4.0  # at most, between two tries to reach a server that was unavailable at the start
FAILED_SECONDS = 30.0  # Retry-After for a model that broke: about what a restart takes, which /livez then asks for

log = get_logger()


class Loader:
    """Belongs to one event loop. `on_loaded` is called with each model that can serve from now on."""

    def __init__(self, on_loaded: Callable[[Model], None] = lambda _: None, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_loaded = on_loaded
        self.clock = clock
        self.tasks: set[asyncio.Task[None]] = set()

    async def load(self, model: Model) -> None:
        """Returns when the load that is under way, or a new one, has ended, or waits for something; the model tells which.

        Whoever waits may leave.
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
        model.load_state.failure = None  # until now it went on being called failed: a second try must not make /readyz wait
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
        is_told = isinstance(load_state.failure, OperatorError)  # a defect is told by where it is; its words may quote anything
        reason = {"reason": str(load_state.failure)} if is_told else {"exc_info": load_state.failure}
        log.error("model_failed", model=model.name, category=model.category, retry_seconds=round(seconds, 1), **reason)

    async def ensure_ready(self, model: Model, name: str, *, deadline: float) -> None:
        """Returns at once if the model can serve. One that is loaded on first use is waited for, until `deadline` at most.

        `name` is the client's own; `deadline` is on the clock of `time.monotonic`. Raises ModelLoading or ModelUnavailable.
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
        """Until a model that failed may serve again. One that waits for another server tries that again and again by itself."""
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
            pass  # the model's state says what becomes of the request
        finally:
            load_state.num_waiting -= 1

    async def watch(self, models: Callable[[], Iterable[Model]]) -> None:
        """Tries those again, for ever, that should be loaded and could not be. One for its first use waits for the next request."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for model in models():
                if model.row.load == "start" and model.load_state.failure is not None and self.clock() >= model.load_state.retry_at:
                    self.begin(model)

    async def close(self) -> None:
        """Loads under way are given up."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def wait_settled(task: asyncio.Task[None], embedder: AnyEmbedder) -> None:
    """Returns when an embedder's start has ended, or says that it waits for what is unavailable. Raises nothing of it."""
    while not task.done() and not embedder.health().category:
        await asyncio.wait([task], timeout=LOOK_SECONDS)
