"""The identity of an input: a SHA-256 digest of its bytes, whatever its time of writing."""

import hashlib
import os
import select
import sys
from pathlib import Path
from threading import Event

from msgspec import Struct

from gateway.errors import OperatorError

CHUNK_BYTES = 1024 * 1024
POLL_SECONDS = 0.2  # between checks for a stop while a run waits for its input
STANDARD_INPUT = "-"


class InputFile(Struct, frozen=True):
    """The size and digest of a file; for a folder, of all its files and their names."""

    num_bytes: int
    sha256: str


FileState = tuple[int, int, int]


def input_of(paths: list[Path], root: Path, stop: Event) -> InputFile:
    """Returns the digest of the input. Reads all of it, unless `stop` is set. Raises OSError."""
    if paths == [root]:
        return file_of(root, stop)
    digest, num_bytes = hashlib.sha256(), 0
    for path in paths:
        file = file_of(path, stop)
        num_bytes += file.num_bytes
        digest.update(f"{path.relative_to(root).as_posix()}\0{file.num_bytes}\0{file.sha256}\0".encode(errors="surrogateescape"))
    return InputFile(num_bytes, digest.hexdigest())


def file_of(path: Path, stop: Event) -> InputFile:
    digest, num_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while not stop.is_set() and (chunk := file.read(CHUNK_BYTES)):
            digest.update(chunk)
            num_bytes += len(chunk)
    return InputFile(num_bytes, digest.hexdigest())


def states_of(paths: list[Path]) -> list[FileState]:
    """Returns sizes, times and inodes: they change with each write to a file, and sometimes without one. Raises OSError."""
    return [(about.st_size, about.st_mtime_ns, about.st_ino) for about in (path.stat() for path in paths)]


def spool(path: Path, target: Path, stop: Event) -> None:
    """Copies a pipe to a file, which can be read again. The path `-` is standard input.

    Raises OSError, and OperatorError for a terminal, because its user would not know that the run waits for input.
    """
    is_standard = str(path) == STANDARD_INPUT
    pipe = sys.stdin.fileno() if is_standard else os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if os.isatty(pipe):
            raise OperatorError("standard input is a terminal: give it a file, as in `gateway embed - … < FILE`")
        with target.open("wb") as file:
            while not stop.is_set():
                if select.select([pipe], [], [], POLL_SECONDS)[0]:
                    chunk = os.read(pipe, CHUNK_BYTES)
                    if not chunk:
                        break
                    file.write(chunk)
    finally:
        if not is_standard:
            os.close(pipe)
