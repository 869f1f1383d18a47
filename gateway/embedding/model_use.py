"""A use of a model: while there is one, the model is not taken out of memory."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from gateway.embedding.model import Model


class ModelUse:
    """Counts from its making until `release`, which may be called twice. `on_idle` is called after the last of a model's uses."""

    __slots__ = ("clock", "model", "on_idle")

    def __init__(self, model: Model, *, clock: Callable[[], float], on_idle: Callable[[], None]) -> None:
        self.model: Model | None = model
        self.clock = clock
        self.on_idle = on_idle
        state = model.load_state
        state.num_users += 1
        state.used_at, state.idle_since = clock(), None

    def release(self) -> None:
        model, self.model = self.model, None
        if model is None:
            return
        state = model.load_state
        state.num_users -= 1
        state.used_at = self.clock()
        if state.num_users == 0:
            state.idle_since = time.time()
            self.on_idle()


@contextmanager
def closing_use(use: ModelUse) -> Iterator[None]:
    """Releases the use at the end of the block."""
    try:
        yield
    finally:
        use.release()


@contextmanager
def kept(models: Iterable[Model], on_idle: Callable[[], None]) -> Iterator[None]:
    """Once they are loaded, the models stay loaded until the block ends."""
    states = [model.load_state for model in models]
    for state in states:
        state.num_keepers += 1
    try:
        yield
    finally:
        for state in states:
            state.num_keepers -= 1
        on_idle()
