"""A backend makes embedders from model rows. Backends are rows in a table; a third party adds one by the entry-point group
`gateway.backends`, naming an object like `Backend`, without touching this repository."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from gateway.config import EngineSettings, LimitSettings, ModelRow, convert
from gateway.embedding.embedder import Embedder
from gateway.embedding.model import Model
from gateway.errors import ConfigurationError
from gateway.metrics import ModelMetrics

GROUP = "gateway.backends"


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What an embedder is given beside the settings of its own row.

    `load_lock` is held by who takes the whole machine, as loading a model does: each takes every core, and for a while several
    times the memory that it keeps. `member` builds a model of another row, with the cache around it: what a group is made of; it
    raises ConfigurationError. `shared` is what the embedders of one gateway share, by a name of the backend's own; `clock` counts
    seconds.
    """

    name: str
    limits: LimitSettings
    engine: EngineSettings
    metrics: ModelMetrics
    data_dir: Path
    load_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    member: Callable[[ModelRow], Model] | None = None
    shared: dict[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic


class Backend(Protocol):
    """`settings` types what a row may hold beside what `gateway.config.ModelRow` names."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> type[Struct]: ...

    def build(self, settings: Any, context: BackendContext) -> Embedder:
        """Cheap: no file is opened and nothing is loaded before `Embedder.start`."""


def installed_backends(builtin: Iterable[Backend]) -> dict[str, Backend]:
    """The built-in backends and those of installed packages, by name. Raises ConfigurationError where one is broken."""
    backends = {backend.name: backend for backend in builtin}
    for point in entry_points(group=GROUP):
        if point.name in backends:
            raise ConfigurationError(f"two backends are named '{point.name}'; one comes from {origin(point)}")
        backends[point.name] = load_entry_point(point)
    return backends


def load_entry_point(point: EntryPoint) -> Backend:
    try:
        backend: Backend = point.load()
    except Exception as error:
        raise ConfigurationError(f"the backend '{point.name}' of {origin(point)} cannot be loaded: {error!r}") from error
    if not (isinstance(getattr(backend, "settings", None), type) and callable(getattr(backend, "build", None))):
        raise ConfigurationError(f"the backend '{point.name}' of {origin(point)} has no `settings` Struct or no `build`")
    return backend


def origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def backend_of(row: ModelRow, backends: dict[str, Backend]) -> tuple[Backend, Struct]:
    """The backend of a row and the row's settings as it types them. Raises ConfigurationError."""
    if row.backend not in backends:
        raise ConfigurationError(
            f"models[{row.name}].backend: no backend is named '{row.backend}'; there are {', '.join(backends)}"
        )
    backend = backends[row.backend]
    return backend, convert(row.settings, backend.settings, where=f"models[{row.name}]")
