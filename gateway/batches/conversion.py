"""Turns a batch's input of another form to lines of requests: see `input_lines`, whose process it runs."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from gateway.batches.input_lines import FAILED, UNREADABLE, Conversion, is_plain
from gateway.config import child_environment
from gateway.errors import StorageUnavailable
from gateway.files.lines import split_lines
from gateway.files.store import FileStore
from gateway.files.stored_file import StoredFile
from gateway.log import get_logger
from gateway.wire.batch_lines import is_blank
from gateway.wire.batches import InputFormat

COMMAND = (sys.executable, "-m", "gateway.batches.input_lines")
MAX_BLANK_LINES = 1000
CHUNK_BYTES = 256 * 1024
LOOK_SECONDS = 1.0  # between looks whether the batch is to go on, while the process writes nothing
MAX_REASON_BYTES = 16 * 1024

log = get_logger()


class UnreadableInput(Exception):
    """The input is not of its form. The message says why, for the client."""


async def has_requests(files: FileStore, file: StoredFile, asked: InputFormat, *, max_line_bytes: int) -> bool:
    """Whether a file has a request in each line. Raises what `FileStore.read` raises."""
    async with aclosing(files.read(file)) as chunks:
        if not (head := await anext(chunks, b"")):
            return True  # and none at all
        first, num_blank = b"", 0
        async with aclosing(split_lines(_with(head, chunks), max_line_bytes=max_line_bytes)) as lines:
            async for line in lines:
                num_blank += 1
                if not is_blank(line) or num_blank == MAX_BLANK_LINES:
                    first = line
                    break
    return await asyncio.to_thread(is_plain, head, first, file.filename, asked)


async def _with(head: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    yield head
    async for chunk in rest:
        yield chunk


async def converted(order: Conversion, *, batch_id: str) -> AsyncGenerator[bytes]:
    """Yields lines of requests, in chunks; an empty one each LOOK_SECONDS in which there is none.

    Raises UnreadableInput, and StorageUnavailable if the process cannot be started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, msgspec.json.encode(order).decode(), stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL,
            env=child_environment(ARROW_DEFAULT_MEMORY_POOL="system"), limit=CHUNK_BYTES,
        )  # fmt: skip
    except OSError as error:
        log.warning("batch_conversion_failed", batch=batch_id, reason=error.strerror)
        raise StorageUnavailable from None
    end = b""
    try:
        async for chunk in _chunks(process):
            end = (end + chunk)[-MAX_REASON_BYTES:]
            yield chunk
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status == FAILED:
        raise UnreadableInput(msgspec.json.decode(end.rpartition(b"\n")[2], type=str))
    if status == UNREADABLE:  # as when it was just deleted: the next look at its row tells
        raise StorageUnavailable
    if status:
        log.warning("batch_conversion_failed", batch=batch_id, status=status)
        raise UnreadableInput("the file cannot be read: it is damaged, or takes too much memory")


async def _chunks(process: Process) -> AsyncGenerator[bytes]:
    stream = process.stdout
    while stream is not None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                chunk = await stream.read(CHUNK_BYTES)
        except TimeoutError:
            yield b""
            continue
        if not chunk:
            return
        yield chunk
