"""Every error crosses between processes unchanged: class, message, status, headers, and what it charges."""

import inspect
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from gateway import errors
from gateway.calls.failure import error_of, failure_of
from gateway.errors import GatewayError, InternalError

ARGUMENTS: dict[str, Any] = {
    "bool": True, "float": 1.5, "int": 7, "Iterable": ["a", "b"], "Sequence": ["a"], "list": ["a"],
}  # fmt: skip


def examples() -> Iterator[GatewayError]:
    for kind in vars(errors).values():
        if inspect.isclass(kind) and issubclass(kind, GatewayError):
            parameters = inspect.signature(kind).parameters.values()
            given = {
                each.name: ARGUMENTS.get(getattr(each.annotation, "__name__", ""), "requests")
                for each in parameters
                if each.default is each.empty
            }
            names = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD and each.name in given]
            positional = [given.pop(name) for name in names]
            yield kind(*positional, **given)


@pytest.mark.parametrize("error", list(examples()), ids=lambda error: type(error).__name__)
def test_an_error_crosses_unchanged(error):
    error.after(num_tokens=3, num_bytes=5)
    crossed = error_of(*msgspec.msgpack.decode(msgspec.msgpack.encode(failure_of(error)), type=tuple[str, dict[str, Any]]))
    assert type(crossed) is type(error)
    assert vars(crossed) == vars(error)
    assert (str(crossed), crossed.status, crossed.outcome, crossed.headers()) == (
        str(error), error.status, error.outcome, error.headers(),
    )  # fmt: skip


def test_an_unknown_class_is_an_internal_error():
    assert type(error_of("Nonesuch", {"message": "m"})) is InternalError
