"""One of those that run against each other: a server that is ready, right and warm, or the reason why it is not."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from benchmarks import queries
from benchmarks.program import HERE
from benchmarks.replies import Vectors, worst_cosine
from benchmarks.sides import CLIENTS, Sides

ENCODE = "encode, no HTTP"


@dataclass(frozen=True)
class Contender:
    """`worst_cosine` is that of its vectors to encode's. Without `sides` there is an `absence`, in words."""

    name: str
    sides: Sides | None = None
    worst_cosine: float | None = None
    absence: str = ""


def entered(stack: contextlib.ExitStack, sides: Sides, expected: Vectors) -> Contender:
    """Starts the server of `sides`. `expected` are encode's vectors of the first request. Never raises RuntimeError."""
    program, requests = sides.server.program, sides.corpus.requests
    executable = Path(program.command[0])
    if not executable.exists():
        return Contender(program.name, absence=f"not installed: there is no {executable.relative_to(HERE.parent)}")
    try:
        server = stack.enter_context(sides.server)
        cosine = worst_cosine(server, requests[0], expected)
        queries.embed_all(server, requests[-CLIENTS:], clients=CLIENTS)  # warm-up
    except RuntimeError as error:
        said = str(error).strip().splitlines()
        return Contender(program.name, absence=" … ".join(dict.fromkeys((said[0], said[-1]))))
    return Contender(program.name, sides, cosine)
