"""The interface of a backend. It makes embedders from model rows, and answers commands about rows that are not loaded."""

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
from gateway.embedding.embedder import AnyEmbedder, ModelKind
from gateway.embedding.model import Model, has_settings_of_vectors, refuse_settings_of_vectors
from gateway.embedding.row_ranges import read_ranges
from gateway.errors import ConfigurationError, OperatorError
from gateway.metrics import ModelMetrics

UNKNOWN = "known once it is loaded"


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What an embedder gets besides the settings of its own row.

    `load_lock` is held during work that takes the whole machine. Loading a model does: it takes every core, and for a while
    several times the memory that it keeps. `member` binds another row to its backend; groups are made with it. It raises
    ConfigurationError. `shared` contains what the embedders of one gateway share, under a name that the backend chooses.
    `is_serving` says whether other models serve, to which long work leaves the CPUs. `clock` counts seconds. `calibrate` is a file
    of texts, of `gateway models build --calibrate`.
    """

    name: str
    limits: LimitSettings
    engine: EngineSettings
    metrics: ModelMetrics
    data_dir: Path
    load_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    member: "Callable[[ModelRow], BoundBackend] | None" = None
    shared: dict[str, Any] = field(default_factory=dict)
    is_serving: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    calibrate: Path | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """The facts that are known of a model before it is loaded, for the table of `gateway models`. None means not known yet.

    `source` is where its vectors come from; `kind` says what they are. `state` tells operators what was made ahead of time.
    `bytes` is the memory that it will take on this machine.
    """

    source: str | None = None
    kind: ModelKind | None = None
    runtime: str | None = None
    device: str | None = None
    precision: str | None = None
    dimensions: int | None = None
    max_tokens: int | None = None
    fidelity: float | None = None
    nearest_kept: float | None = None
    state: str = UNKNOWN
    bytes: int | None = None
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """The result of compiling the model `name`. `result` is for operators: the path, or why there is nothing to compile."""

    name: str
    result: str


class CompileProgress(Protocol):
    """A callback for each step of compiling a model, called as the step begins. `share` (0 to 1) is the progress at its end."""

    def __call__(self, name: str, step: str, *, share: float) -> None: ...


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """`ask` connects to `what`, and returns a remark on it for the operator, or "".

    Raises OperatorError or GatewayError if it cannot be used.
    """

    what: str
    ask: Callable[[], Awaitable[str]]


class Backend(Protocol):
    """A kind of model. It needs only `name`, `settings` and `build`; the other methods have the defaults below.

    `settings` types a row's fields besides those of `gateway.config.ModelRow`. `has_cache` means that its embedders cache their
    vectors themselves: no cache is put around them.

    Commands call all methods but `build`, in a process of their own that serves nothing. Each of those may block.
    """

    name: str
    settings: type[Struct]
    has_cache: bool = False

    @abstractmethod
    def build(self, settings: Any, context: BackendContext) -> AnyEmbedder:
        """Makes an embedder. Cheap: it opens no file and loads nothing; `Embedder.start` does."""

    def check(self, settings: Any, context: BackendContext) -> None:  # noqa: ARG002 - here and below, the arguments are for overriding methods
        """Makes nothing and connects to nothing. Raises OperatorError if a secret, a file or a package is missing here."""
        return

    def connections(self, settings: Any, context: BackendContext) -> Iterable[ConnectionCheck]:  # noqa: ARG002
        """The servers that such a model would connect to, as one check each."""
        return ()

    def compile(self, settings: Any, context: BackendContext, progress: CompileProgress) -> Iterator[Compiled]:  # noqa: ARG002
        """Makes ahead of time what `start` would have to make. Raises OperatorError if it cannot be made."""
        yield Compiled(context.name, f"nothing to compile: the backend '{self.name}' compiles nothing")

    def preview(self, settings: Any, context: BackendContext) -> Preview:  # noqa: ARG002
        """Opens files, and loads nothing. Raises OperatorError if the model cannot be served."""
        return Preview(source=self.name)

    def is_local(self, settings: Any, context: BackendContext) -> bool:  # noqa: ARG002
        """Whether this machine computes the vectors: `gateway embed` then embeds one shard at a time, and waits for compiling."""
        return False

    def find_compiled(self, settings: Any, context: BackendContext, fingerprint: str) -> AnyEmbedder | None:  # noqa: ARG002
        """A started embedder for an earlier fingerprint of this row, if its vectors can still be made; else None."""
        return None


@dataclass(frozen=True, slots=True)
class BoundBackend:
    """A backend with one row's settings and context. Its errors name the row, or the member of a group, that they concern.

    `cached` puts the cache around an embedder.
    """

    row: ModelRow
    backend: Backend
    settings: Struct
    context: BackendContext
    cached: Callable[[AnyEmbedder], AnyEmbedder]

    def build(self) -> Model:
        """Makes the model, with the cache unless the backend has one. Raises ConfigurationError."""
        built = self.backend.build(self.settings, self.context)
        embedder = built if self.backend.has_cache else self.cached(built)
        model = Model(self.row, embedder, built, row_ranges=read_ranges(self.row))
        if self.row.unload_after is not None and model.unloadable is None:
            raise ConfigurationError(
                f"models[{self.row.name}].unload_after: the backend '{self.backend.name}' has nothing to unload: remove it"
            )
        return model

    def check(self) -> None:
        with _errors_of(self.context.name):
            self.backend.check(self.settings, self.context)
            if has_settings_of_vectors(self.row):  # only then, as a preview may read all of a model's files
                refuse_settings_of_vectors(self.row, self.backend.preview(self.settings, self.context).kind)

    def connections(self) -> list[ConnectionCheck]:
        return list(self.backend.connections(self.settings, self.context))

    def compile(self, progress: CompileProgress) -> Iterator[Compiled]:
        with _errors_of(self.context.name):
            yield from self.backend.compile(self.settings, self.context, progress)

    def preview(self) -> Preview:
        """The backend's preview. If it refuses the row, `state` says why."""
        try:
            with _errors_of(self.context.name):
                return self.backend.preview(self.settings, self.context)
        except OperatorError as error:
            return Preview(state=f"refused: {error}")

    def is_local(self) -> bool:
        return self.backend.is_local(self.settings, self.context)

    def find_compiled(self, fingerprint: str) -> AnyEmbedder | None:
        return self.backend.find_compiled(self.settings, self.context, fingerprint)


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Prefixes an OperatorError from within with the row that it concerns, if it does not name one yet."""
    try:
        yield
    except OperatorError as error:
        if not str(error).startswith("models["):
            error.args = (f"models[{name}]: {error}",)
        raise
