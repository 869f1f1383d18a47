"""Request bodies: read with limits of size and time, counted while in memory, decompressed if gzip. Then the client is watched
for a disconnect."""

import asyncio
import zlib
from collections.abc import Callable, Iterator
from types import TracebackType

from litestar.types import Receive, Scope

from gateway.access.admission import Admission, Permit
from gateway.api.error_format import JSON
from gateway.background import launch
from gateway.config import ServerSettings
from gateway.errors import (
    BodyTooLarge,
    ClientError,
    ClientGone,
    InvalidJSON,
    SlowRequest,
    UnsupportedEncoding,
    UnsupportedMediaType,
)
from gateway.server.headers import Headers, value_of

GZIP = zlib.MAX_WBITS | 16  # zlib's code for a gzip header
FED_BYTES = 16 * 1024
PIECE_BYTES = 64 * 1024
UNPAUSED_BYTES = 64 * 1024  # uvicorn's high-water mark (its flow_control.py)
MAX_MEMBERS = 1024  # bgzip makes the smallest members of all tools: 256 in 16 MB


async def read(scope: Scope, receive: Receive, permit: Permit, settings: ServerSettings) -> bytes:
    """Returns the body as it was sent.

    Raises BodyTooLarge as soon as that is known, SlowRequest, ClientGone, and Overloaded if all bodies together are too many bytes.
    """
    declared = value_of(scope["headers"], b"content-length") or b""
    if declared.isdigit() and int(declared) > settings.max_body_bytes:
        raise BodyTooLarge(settings.max_body_bytes)
    arrival = scope["state"].get("arrival")
    if arrival is not None and arrival.is_whole:
        return await _receive_all(receive, permit, settings)
    try:
        async with asyncio.timeout(settings.body_timeout_seconds):
            return await _receive_all(receive, permit, settings)
    except TimeoutError:
        raise SlowRequest(settings.body_timeout_seconds) from None


async def _receive_all(receive: Receive, permit: Permit, settings: ServerSettings) -> bytes:
    chunks: list[bytes] = []
    num_bytes, is_more = 0, True
    while is_more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunk = message["body"]
        num_bytes += len(chunk)
        if num_bytes > settings.max_body_bytes:
            raise BodyTooLarge(settings.max_body_bytes)
        permit.hold(len(chunk))
        chunks.append(chunk)
        is_more = message["more_body"]
    return b"".join(chunks)


async def read_small(scope: Scope, receive: Receive, admission: Admission, settings: ServerSettings) -> bytes:
    """Returns a body's content, decompressed on the event loop, for requests whose `max_body_bytes` is small.

    Raises what `read` and `decompress` raise, UnsupportedEncoding, and Overloaded if there is no place in `admission`.
    """
    with admission.enter() as permit:
        encoding = encoding_of(scope)
        raw = await read(scope, receive, permit, settings)
        return decompress(raw, max_bytes=settings.max_body_bytes) if encoding else raw


def encoding_of(scope: Scope) -> str:
    """Returns the Content-Encoding: "gzip", or "" for none. Raises UnsupportedEncoding for any other."""
    value = (value_of(scope["headers"], b"content-encoding") or b"").decode("latin-1").strip().lower()
    if value in {"", "identity"}:
        return ""
    if value in {"gzip", "x-gzip"}:
        return "gzip"
    raise UnsupportedEncoding


def refuse_other_types(headers: Headers) -> None:
    """Raises UnsupportedMediaType unless the Content-Type is application/json, or ends in +json."""
    value = value_of(headers, b"content-type") or b""
    essence = value.decode("latin-1").partition(";")[0].strip().lower()
    if essence != JSON and not (essence.startswith("application/") and essence.endswith("+json")):
        raise UnsupportedMediaType


def decompress(raw: bytes, *, max_bytes: int) -> bytes:
    """Returns a gzip body's content. Raises BodyTooLarge as soon as it exceeds `max_bytes`, InvalidJSON if it is broken."""
    content = bytearray()
    try:
        for piece in pieces(raw):
            content += piece
            if len(content) > max_bytes:  # by one piece at most
                raise BodyTooLarge(max_bytes)
    except zlib.error:
        raise InvalidJSON("its gzip encoding is broken").after(num_bytes=len(content)) from None
    except ClientError as error:
        raise error.after(num_bytes=len(content)) from None
    return bytes(content)


def pieces(raw: bytes) -> Iterator[bytes]:
    """Yields the content of all gzip members, piece by piece.

    A member is fed FED_BYTES at a time, because zlib returns the bytes after its end as a copy. Fed the whole body at once, 800,000
    empty members took 150 s. Raises InvalidJSON and zlib.error.
    """
    rest = memoryview(raw)
    for _ in range(MAX_MEMBERS):
        member = zlib.decompressobj(GZIP)
        while not member.eof:
            if not rest:
                raise InvalidJSON("its gzip encoding is cut short")
            fed, rest = rest[:FED_BYTES], rest[FED_BYTES:]
            piece = member.decompress(fed, PIECE_BYTES)
            yield piece
            while len(piece) == PIECE_BYTES:
                piece = member.decompress(member.unconsumed_tail, PIECE_BYTES)
                yield piece
            if member.unused_data:
                rest = memoryview(raw)[len(raw) - len(rest) - len(member.unused_data) :]
        if not rest:
            return
    raise InvalidJSON("its gzip encoding has too many members")


class CancelScope:
    """Context manager: cancels its block if the client disconnects, and raises ClientGone; or after `timeout_seconds`, and raises
    TimeoutError. Enter it after the whole body was read.

    The server calls the entries of `on_disconnect`. A task awaits the message instead below another server, where there are none,
    and after a body of more than UNPAUSED_BYTES: the server has stopped reading then, and goes on only once it is asked to receive.
    """

    def __init__(self, scope: Scope, receive: Receive, *, num_bytes: int, timeout_seconds: float) -> None:
        """`num_bytes` are those of the body as it was sent."""
        entries: list[Callable[[], None]] | None = scope["state"].get("on_disconnect")
        self.on_disconnect = entries if num_bytes <= UNPAUSED_BYTES else None
        self.receive = receive
        self.timeout_seconds = timeout_seconds
        self.reason: type[ClientGone | TimeoutError] | None = None
        self.watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self.worker = asyncio.current_task()
        self.timer = asyncio.get_running_loop().call_later(self.timeout_seconds, self.cancel, TimeoutError)
        if self.on_disconnect is None:
            self.watcher = launch(self.watch(), name="client-watch", is_awaited=False)
        else:
            self.on_disconnect.append(self.leave)

    async def watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.leave()

    def leave(self) -> None:
        self.cancel(ClientGone)

    def cancel(self, reason: type[ClientGone | TimeoutError]) -> None:
        if self.reason is None and self.worker is not None:
            self.reason = reason
            self.worker.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.timer.cancel()
        if self.on_disconnect is not None:
            self.on_disconnect.remove(self.leave)
        if self.watcher is not None:
            self.watcher.cancel()
        if isinstance(error, asyncio.CancelledError) and self.reason and self.worker is not None and self.worker.uncancel() == 0:
            raise self.reason from None
