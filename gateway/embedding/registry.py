"""The registry of backends, by name.

A third party adds one by the entry-point group `gateway.backends`, without changing this repository.
"""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from inspect import isasyncgenfunction, iscoroutinefunction, isfunction
from typing import Any

from msgspec import Struct

from gateway.config import ModelRow, convert
from gateway.embedding.backend import Backend
from gateway.errors import ConfigurationError

GROUP = "gateway.backends"
METHODS = [name for name, part in vars(Backend).items() if isfunction(part) and not name.startswith("_")]
OPTIONAL = ["has_cache", *(name for name in METHODS if name != "build")]


class _CompletedBackend(Backend):
    """Adapts an object with `settings` and `build` that does not inherit Backend. Members it lacks come from Backend."""

    def __init__(self, given: Any, *, name: str) -> None:
        self.name = name
        self.settings = given.settings
        self.given = given
        for part in OPTIONAL:
            if hasattr(given, part):
                setattr(self, part, getattr(given, part))

    def build(self, settings: Any, context: Any) -> Any:
        return self.given.build(settings, context)


def installed_backends(builtin: Iterable[Any]) -> dict[str, Backend]:
    """The built-in backends and those of installed packages, by name. Raises ConfigurationError if one is broken."""
    backends = {each.name: complete(each, each.name) for each in builtin}
    for point in entry_points(group=GROUP):
        if point.name in backends:
            raise ConfigurationError(f"two backends are named '{point.name}'; one comes from {origin(point)}")
        backends[point.name] = load_entry_point(point)
    return backends


def load_entry_point(point: EntryPoint) -> Backend:
    where = f"the backend '{point.name}' of {origin(point)}"
    try:
        backend = point.load()
    except Exception as error:
        raise ConfigurationError(f"{where} cannot be loaded: {error!r}") from error
    _refuse_other_objects(backend, point.name, where)
    return complete(backend, point.name)


def _refuse_other_objects(backend: Any, name: str, where: str) -> None:
    """Raises ConfigurationError if the object is no backend of this name."""
    if isinstance(backend, type):
        raise ConfigurationError(f"{where} is a class: name an object of it as the entry point")
    settings = getattr(backend, "settings", None)
    if not (isinstance(settings, type) and issubclass(settings, Struct) and callable(getattr(backend, "build", None))):
        raise ConfigurationError(f"{where} has no `settings` Struct or no `build`")
    for part in METHODS:
        method = getattr(backend, part, None)
        if hasattr(backend, part) and not callable(method):
            raise ConfigurationError(f"{where} has a `{part}` that cannot be called")
        if iscoroutinefunction(method) or isasyncgenfunction(method):
            raise ConfigurationError(f"{where} has a `{part}` that is a coroutine: it is called without an event loop")
    if (own := getattr(backend, "name", name)) != name:
        raise ConfigurationError(f"{where} calls itself '{own}': its entry point must have that name")


def complete(backend: Any, name: str) -> Backend:
    """The object itself if it has all members of Backend, else adapted."""
    is_whole = all(hasattr(backend, part) for part in ("name", *OPTIONAL))
    return backend if is_whole else _CompletedBackend(backend, name=name)


def origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def backend_of(row: ModelRow, backends: dict[str, Backend]) -> tuple[Backend, Struct]:
    """The backend of a row, and the row's settings in the backend's type. Raises ConfigurationError."""
    if row.backend not in backends:
        raise ConfigurationError(
            f"models[{row.name}].backend: no backend is named '{row.backend}'; there are {', '.join(backends)}"
        )
    backend = backends[row.backend]
    return backend, convert(row.settings, backend.settings, where=f"models[{row.name}]")
