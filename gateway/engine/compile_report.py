"""What the compiling child tells the gateway: lines of JSON on its standard output, among whatever libraries print there.

A model's own code may run in the child, so nothing here is taken on trust: lines, errors and the time to wait are bounded.
"""

import os
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import msgspec
from msgspec import Struct

POLL_SECONDS = 0.2  # how late the end of a child is seen whose own children keep its output open
PIPE_BYTES = 64 * 1024  # what Linux keeps of a pipe; a longer line is no report
MAX_ERROR_CHARS = 1000


class CompileReport(Struct, frozen=True):
    """A line that the child prints: a step that begins, or an error."""

    step: str = ""
    error: str = ""
    category: str = "cannot_be_loaded"


def read_reports(process: "subprocess.Popen[bytes]", *, seconds: float) -> Iterator[CompileReport]:
    """The child's reports, until it has ended or `seconds` have passed. Then it has a returncode, or None if it was too late."""
    deadline = time.monotonic() + seconds
    if process.stdout is not None:
        yield from _read_lines(process, process.stdout.fileno(), deadline)
    with suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, deadline - time.monotonic()))


def _read_lines(process: "subprocess.Popen[bytes]", pipe: int, deadline: float) -> Iterator[CompileReport]:
    unfinished = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            has_ended = process.poll() is not None  # asked before the last read, which then has all that the child wrote
            if selector.select(0 if has_ended else POLL_SECONDS):
                read = os.read(pipe, PIPE_BYTES)
                *lines, unfinished = (unfinished + read).split(b"\n")
                yield from map(_parse, lines)
                unfinished = unfinished if len(unfinished) < PIPE_BYTES else b""
                has_ended = has_ended or not read
            if has_ended:
                return


def _parse(line: bytes) -> CompileReport:
    """Returns an empty report if the line is none: libraries print to standard output too."""
    try:
        report = msgspec.json.decode(line, type=CompileReport)
    except msgspec.MsgspecError:
        return CompileReport()
    error = "".join(char if char.isprintable() else " " for char in report.error)[:MAX_ERROR_CHARS]
    return msgspec.structs.replace(report, error=error)
