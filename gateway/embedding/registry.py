"""Backends are rows in a table.

A third party adds one by the entry-point group `gateway.backends`, without touching this repository.
"""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from msgspec import Struct

from gateway.config import ModelRow, convert
from gateway.embedding.backend import Backend
from gateway.errors import ConfigurationError

GROUP = "gateway.backends"
ANSWERS = ("has_cache", "check", "connections", "compile", "preview", "is_local", "find_compiled")


class CompletedBackend(Backend):
    """An object that is no Backend by its base, and has `name`, `settings` and `build`. What else it lacks is Backend's own."""

    def __init__(self, given: Any, *, name: str) -> None:
        self.name = name
        self.settings = given.settings
        self.given = given
        for answer in ANSWERS:
            if hasattr(given, answer):
                setattr(self, answer, getattr(given, answer))

    def build(self, settings: Any, context: Any) -> Any:
        return self.given.build(settings, context)


def installed_backends(builtin: Iterable[Any]) -> dict[str, Backend]:
    """The built-in backends and those of installed packages, by name. Raises ConfigurationError where one is broken."""
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
    if isinstance(backend, type):
        raise ConfigurationError(f"{where} is a class: name an object of it as the entry point")
    settings = getattr(backend, "settings", None)
    if not (isinstance(settings, type) and issubclass(settings, Struct) and callable(getattr(backend, "build", None))):
        raise ConfigurationError(f"{where} has no `settings` Struct or no `build`")
    if wrong := [name for name in ANSWERS[1:] if hasattr(backend, name) and not callable(getattr(backend, name))]:
        raise ConfigurationError(f"{where} has a `{wrong[0]}` that cannot be called")
    if (own := getattr(backend, "name", point.name)) != point.name:
        raise ConfigurationError(f"{where} calls itself '{own}': its entry point must have that name")
    return complete(backend, point.name)


def complete(backend: Any, name: str) -> Backend:
    """What has all of Backend as it is."""
    is_whole = all(hasattr(backend, part) for part in ("name", *ANSWERS))
    return backend if is_whole else CompletedBackend(backend, name=name)


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
