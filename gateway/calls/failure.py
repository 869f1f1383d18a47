"""A GatewayError as a message, and back: the same class with the same attributes, so that it is answered and counted the same."""

from collections.abc import Iterator
from typing import Any

from gateway.errors import GatewayError, InternalError


def failure_of(error: GatewayError) -> tuple[str, dict[str, Any]]:
    """The error's class by name, and its attributes. They are numbers, texts, and lists of these."""
    return type(error).__name__, dict(vars(error))


def error_of(name: str, attributes: dict[str, Any]) -> GatewayError:
    """The inverse. An error whose class is unknown here is an InternalError."""
    kind = _by_name().get(name, InternalError)
    error = kind.__new__(kind)
    vars(error).update(attributes)
    error.args = (attributes.get("message", ""),)
    return error


def _by_name() -> dict[str, type[GatewayError]]:
    if not _KINDS:
        _KINDS.update({kind.__name__: kind for kind in _kinds(GatewayError)})
    return _KINDS


def _kinds(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _kinds(each)


_KINDS: dict[str, type[GatewayError]] = {}
