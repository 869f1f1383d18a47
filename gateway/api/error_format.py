"""How errors are written. OpenAI's shape is the usual one; a door of another protocol has its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

from gateway.errors import GatewayError

JSON = "application/json"


class ErrorObject(Struct, frozen=True):
    """OpenAI's four fields. All are always present."""

    message: Annotated[str, Meta(description="For people. Words may change; match `code`.")]
    type: str
    param: Annotated[str | None, Meta(description="The field that is wrong.")]
    code: str | None


class ErrorBody(Struct, frozen=True):
    """The body of every error."""

    error: ErrorObject


@dataclass(frozen=True, slots=True)
class RenderedError:
    """An error as a client gets it. Its headers are the error's own, at every door."""

    status: int
    body: bytes
    content_type: str = JSON


ErrorFormat: TypeAlias = Callable[[GatewayError], RenderedError]


def openai_error(error: GatewayError) -> RenderedError:
    content = ErrorBody(ErrorObject(error.message, error.type, error.param, error.code))
    return RenderedError(error.status, msgspec.json.encode(content))
