"""The memory budget: which models of this machine are loaded, what they take, and which go to make room for another.

Least recently used first, of those that are loaded on first use. A model with a request goes only once that is answered, one that a
batch keeps not at all. A model stays for as long as its load took: under any load, half of the time at most goes into loading.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from gateway.embedding.model import Model
from gateway.errors import ConfigurationError, OperatorError

MAX_STAY_SECONDS = 10.0
CATEGORY = "memory_budget"


class MemoryBudget:
    """`max_bytes` is the bound, 0 for none. Used on the event loop only."""

    def __init__(self, max_bytes: int = 0) -> None:
        self.max_bytes = max_bytes
        self.loaded: dict[int, Model] = {}  # by the identity of their load state, which outlives configurations

    def add(self, model: Model) -> None:
        self.loaded[id(model.load_state)] = model

    def remove(self, model: Model) -> None:
        self.loaded.pop(id(model.load_state), None)

    def adopt(self, models: Iterable[Model]) -> None:
        """Takes the rows of a new configuration for the models that it shares with the one before."""
        self.loaded |= {key: model for model in models if (key := id(model.load_state)) in self.loaded}

    @contextmanager
    def widened(self, max_bytes: int) -> Iterator[None]:
        """While a new configuration's models are loaded the larger bound holds, of that configuration and the one in effect."""
        before = self.max_bytes
        self.max_bytes = max(before, max_bytes) if before and max_bytes else 0
        try:
            yield
        finally:
            self.max_bytes = before

    def excess(self, model: Model | None = None, num_bytes: int = 0) -> int:
        """The bytes above the bound, once `model` is loaded too and takes `num_bytes`."""
        return max(0, self._bytes_beside(model) + num_bytes - self.max_bytes) if self.max_bytes else 0

    def movable(self, model: Model | None = None) -> list[Model]:
        """The models that may go, now or once their requests are answered: the least recently used first."""
        others = [each for each in self._beside(model) if may_go(each) and not each.load_state.num_keepers]
        return sorted(others, key=lambda each: each.load_state.used_at)

    def has_room_in_time(self, model: Model, num_bytes: int) -> bool:
        """Whether there will be room for `num_bytes` once all requests are answered."""
        return self.excess(model, num_bytes) <= sum(each.num_bytes for each in self.movable(model))

    def refuse_larger(self, model: Model, num_bytes: int) -> None:
        """Raises OperatorError if a model can never be loaded; ConfigurationError if it has to be loaded at the start."""
        fixed = sum(each.num_bytes for each in self._beside(model) if not may_go(each))
        if self.max_bytes and num_bytes and fixed + num_bytes > self.max_bytes:
            kind = ConfigurationError if model.row.load == "start" else OperatorError
            raise kind(too_large(model.name, num_bytes, self.max_bytes, fixed=fixed), category=CATEGORY)

    def refuse_excess(self, models: Iterable[Model], max_bytes: int) -> None:
        """Raises ConfigurationError if those of `models` that stay loaded take more than `max_bytes`."""
        num_bytes = sum(each.num_bytes for each in models if id(each.load_state) in self.loaded and not may_go(each))
        if max_bytes and num_bytes > max_bytes:
            raise ConfigurationError(f"engine.memory_budget: models that stay loaded take {num_bytes:,} bytes of its {max_bytes:,}")

    def _bytes_beside(self, model: Model | None) -> int:
        return sum(each.num_bytes for each in self._beside(model))

    def _beside(self, model: Model | None) -> list[Model]:
        """The other loaded models, without those that the configuration being loaded replaces: they go after their last request."""
        own = model.load_state if model is not None else None
        return [each for each in self.loaded.values() if each.load_state is not own and not each.load_state.is_replaced]


def too_large(name: str, num_bytes: int, max_bytes: int, *, fixed: int) -> str:
    """Says why a model can never be loaded. `fixed` are the bytes of models that stay loaded."""
    beside = f", of which models that stay loaded take {fixed:,}" if fixed else ""
    return f"models[{name}]: it takes {num_bytes:,} bytes, and engine.memory_budget is {max_bytes:,}{beside}"


def may_go(model: Model) -> bool:
    """Whether a model may be unloaded at all."""
    return model.row.load == "first_use" and model.unloadable is not None


def stay_seconds(model: Model) -> float:
    """For how long after its load a model may not be unloaded for another."""
    return min(MAX_STAY_SECONDS, model.load_state.load_seconds)
