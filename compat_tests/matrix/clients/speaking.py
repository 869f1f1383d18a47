"""What the programs of Python clients share: lines in, lines out. Only the standard library, for any environment runs it."""

import array
import base64
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """`options` belong to the request (encoding_format, dimensions); `timeout_seconds` None leaves the client its own settings."""

    base_url: str
    key: str
    model: str
    input: Any
    options: dict[str, Any] = field(default_factory=dict)
    timeout_seconds: float | None = None

    @property
    def origin(self) -> str:
        return self.base_url.removesuffix("/v1")

    @property
    def is_one(self) -> bool:
        return isinstance(self.input, str)

    @property
    def impatience(self) -> dict[str, Any]:
        """openai-python's settings for a timeout, and nothing tried again; none where no timeout is asked for."""
        return {} if self.timeout_seconds is None else {"timeout": self.timeout_seconds, "max_retries": 0}


def speak(version: str, embed: Callable[[Asked], Iterable[Any]]) -> None:
    """Says the version, then answers every line of stdin. Whatever else prints to stdout goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        print(json.dumps({"version": version}), file=out, flush=True)
        for line in sys.stdin:
            print(json.dumps(said_to(Asked(**json.loads(line)), embed)), file=out, flush=True)


def said_to(asked: Asked, embed: Callable[[Asked], Iterable[Any]]) -> dict[str, Any]:
    try:
        return {"vectors": [numbers(vector) for vector in embed(asked)]}
    except Exception as error:  # noqa: BLE001 - which error a client raises is what is asked
        status = getattr(error, "status_code", None)
        return {"error": {"name": type(error).__name__, "status": status, "message": str(error)}}


def numbers(vector: Any) -> list[float]:
    """A client that was asked for base64 by name hands the text on as it came."""
    if isinstance(vector, str):
        return array.array("f", base64.b64decode(vector, validate=True)).tolist()
    return [float(number) for number in vector]
