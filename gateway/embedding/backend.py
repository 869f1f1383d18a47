"""A backend makes embedders from model rows, and answers what commands ask of a row that is not loaded."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from gateway.config import EngineSettings, LimitSettings, ModelRow
from gateway.embedding.embedder import AnyEmbedder
from gateway.embedding.model import Model
from gateway.errors import OperatorError
from gateway.metrics import ModelMetrics

UNKNOWN = "known once it is loaded"


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What an embedder is given beside the settings of its own row.

    `load_lock` is held by who takes the whole machine, as loading a model does: each takes every core, and for a while several
    times the memory that it keeps. `member` binds a row of its own to its backend: what a group is made of; it raises
    ConfigurationError. `shared` is what the embedders of one gateway share, by a name of the backend's own; `clock` counts seconds.
    """

    name: str
    limits: LimitSettings
    engine: EngineSettings
    metrics: ModelMetrics
    data_dir: Path
    load_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    member: "Callable[[ModelRow], BoundBackend] | None" = None
    shared: dict[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Preview:
    """What is known of a model before it is loaded, for the table of `gateway models`. None is not known yet.

    `source` is what its vectors come from. `state` is for operators: what was made ahead of time.
    """

    source: str | None = None
    runtime: str | None = None
    device: str | None = None
    precision: str | None = None
    dimensions: int | None = None
    max_tokens: int | None = None
    fidelity: float | None = None
    state: str = UNKNOWN
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of compiling the model `name`; `result` is for operators: where it lies, or why there is nothing to compile."""

    name: str
    result: str


class CompileProgress(Protocol):
    """Hears of each step of compiling a model as it begins. `share`, from 0 to 1, is how much will be done once it has ended."""

    def __call__(self, name: str, step: str, *, share: float) -> None: ...


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """`ask` reaches `what`, and returns what there is to say of it.

    Raises OperatorError or GatewayError where it cannot be used.
    """

    what: str
    ask: Callable[[], Awaitable[str]]


class Backend(Protocol):
    """A kind of model. `name`, `settings` and `build` are all it needs; what it does not answer is answered as here.

    `settings` types what a row may hold beside what `gateway.config.ModelRow` names. `has_cache` says that its embedders keep their
    vectors themselves: no cache is put around them.

    All but `build` is asked by commands, in a process of their own, where nothing is served. Each may block.
    """

    name: str
    settings: type[Struct]
    has_cache: bool = False

    @abstractmethod
    def build(self, settings: Any, context: BackendContext) -> AnyEmbedder:
        """Cheap: no file is opened and nothing is loaded before `Embedder.start`."""

    def check(self, settings: Any, context: BackendContext) -> None:  # noqa: ARG002 - as in all that follow: for who overrides it
        """Makes nothing, and reaches for nobody. Raises OperatorError for what is missing here: a secret, a file, a package."""
        return

    def connections(self, settings: Any, context: BackendContext) -> Iterable[ConnectionCheck]:  # noqa: ARG002
        """Whom such a model would reach, each to be asked by itself."""
        return ()

    def compile(self, settings: Any, context: BackendContext, progress: CompileProgress) -> Iterator[Compiled]:  # noqa: ARG002
        """Makes ahead of time what `start` would have to make. Raises OperatorError where it cannot be made."""
        yield Compiled(context.name, f"nothing to compile: the backend '{self.name}' compiles nothing")

    def preview(self, settings: Any, context: BackendContext) -> Preview:  # noqa: ARG002
        """Opens files, and loads nothing. Raises OperatorError for a model that cannot be served."""
        return Preview(source=self.name)

    def is_local(self, settings: Any, context: BackendContext) -> bool:  # noqa: ARG002
        """Whether this machine computes the vectors: `gateway embed` then embeds one shard at a time, and waits for compiling."""
        return False

    def find_compiled(self, settings: Any, context: BackendContext, fingerprint: str) -> AnyEmbedder | None:  # noqa: ARG002
        """An embedder, started, of vectors that this row once had and that can still be made; None where it has none."""
        return None


@dataclass(frozen=True, slots=True)
class BoundBackend:
    """A backend, with one row's settings and context. Its errors name the row, or the member of a group, that they are of.

    `cached` puts the cache around an embedder.
    """

    row: ModelRow
    backend: Backend
    settings: Struct
    context: BackendContext
    cached: Callable[[AnyEmbedder], AnyEmbedder]

    def build(self) -> Model:
        """Raises ConfigurationError."""
        built = self.backend.build(self.settings, self.context)
        return Model(self.row, built if self.backend.has_cache else self.cached(built), built)

    def check(self) -> None:
        with errors_of(self.context.name):
            self.backend.check(self.settings, self.context)

    def connections(self) -> list[ConnectionCheck]:
        return list(self.backend.connections(self.settings, self.context))

    def compile(self, progress: CompileProgress) -> Iterator[Compiled]:
        with errors_of(self.context.name):
            yield from self.backend.compile(self.settings, self.context, progress)

    def preview(self) -> Preview:
        """One that is refused says why."""
        try:
            with errors_of(self.context.name):
                return self.backend.preview(self.settings, self.context)
        except OperatorError as error:
            return Preview(state=f"refused: {error}")

    def is_local(self) -> bool:
        return self.backend.is_local(self.settings, self.context)

    def find_compiled(self, fingerprint: str) -> AnyEmbedder | None:
        return self.backend.find_compiled(self.settings, self.context, fingerprint)


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """An OperatorError from within begins with the row that it is of, where it does not do so already."""
    try:
        yield
    except OperatorError as error:
        if not str(error).startswith("models["):
            error.args = (f"models[{name}]: {error}",)
        raise
