"""The bytes of a request: bounded in size and in time, counted while they are held, unpacked if they are gzip; and the client
watched once they are here."""

import asyncio
import zlib
from collections.abc import Iterator
from types import TracebackType

from litestar.types import Receive, Scope

from gateway.access.admission import Permit
from gateway.background import launch
from gateway.config import ServerSettings
from gateway.errors import BodyTooLarge, ClientError, ClientGone, InvalidJSON, SlowRequest, UnsupportedEncoding

GZIP = zlib.MAX_WBITS | 16  # zlib's way to say: with a gzip header
FED_BYTES = 16 * 1024
PIECE_BYTES = 64 * 1024
MAX_MEMBERS = 1024  # bgzip, which makes the smallest ones there are, has 256 in 16 MB


async def read(scope: Scope, receive: Receive, permit: Permit, settings: ServerSettings) -> bytes:
    """Raises BodyTooLarge as soon as that is known, SlowRequest, ClientGone, or Overloaded when all bodies are too many."""
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if declared.isdigit() and int(declared) > settings.max_body_bytes:
        raise BodyTooLarge(settings.max_body_bytes)
    chunks = bytearray()
    try:
        async with asyncio.timeout(settings.body_timeout_seconds):
            is_more = True
            while is_more:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientGone
                chunk = message["body"]
                if len(chunks) + len(chunk) > settings.max_body_bytes:
                    raise BodyTooLarge(settings.max_body_bytes)
                permit.hold(len(chunk))
                chunks += chunk
                is_more = message["more_body"]
    except TimeoutError:
        raise SlowRequest(settings.body_timeout_seconds) from None
    return bytes(chunks)


def encoding_of(scope: Scope) -> str:
    """The Content-Encoding, "" for none. Raises UnsupportedEncoding for one we do not read."""
    value = next((value for name, value in scope["headers"] if name == b"content-encoding"), b"").decode("latin-1").strip().lower()
    if value in {"", "identity"}:
        return ""
    if value in {"gzip", "x-gzip"}:
        return "gzip"
    raise UnsupportedEncoding


def decompress(raw: bytes, *, max_bytes: int) -> bytes:
    """A gzip body's content. Raises BodyTooLarge as soon as it has more than `max_bytes`, InvalidJSON."""
    content = bytearray()
    try:
        for piece in pieces(raw):
            content += piece
            if len(content) > max_bytes:  # by a piece at most
                raise BodyTooLarge(max_bytes)
    except zlib.error:
        raise InvalidJSON("its gzip encoding is broken").after(num_bytes=len(content)) from None
    except ClientError as error:
        raise error.after(num_bytes=len(content)) from None
    return bytes(content)


def pieces(raw: bytes) -> Iterator[bytes]:
    """What is in all its members, piece by piece. Raises InvalidJSON and zlib.error.

    A member is fed bit by bit, since what is behind its end comes back as a copy: of a whole body for each of 800,000 empty members
    that made 150 s.
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


class CancelOnDisconnect:
    """Cancels what runs inside when the client closes its connection, and raises ClientGone. Only after the whole body was read.

    The watch begins in the loop's next turn: what is answered within this one, from the cache, is never watched.
    """

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.has_left = False
        self.watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self.worker = asyncio.current_task()
        self.start = asyncio.get_running_loop().call_soon(self.begin)

    def begin(self) -> None:
        self.watcher = launch(self.watch(), name="client-watch", is_awaited=False)

    async def watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        if self.worker is not None:
            self.worker.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.start.cancel()
        if self.watcher is not None:
            self.watcher.cancel()
        if isinstance(error, asyncio.CancelledError) and self.has_left and self.worker is not None and self.worker.uncancel() == 0:
            raise ClientGone from None
