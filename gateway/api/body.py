"""The bytes of a request: bounded in size and in time, counted while they are held, and the client watched once they are here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar.types import Receive, Scope

from gateway.access.admission import Stay
from gateway.config import ServerSettings
from gateway.errors import BodyTooLarge, ClientGone, SlowBody


async def read(scope: Scope, receive: Receive, stay: Stay, settings: ServerSettings) -> bytes:
    """Raises BodyTooLarge as soon as that is known, SlowBody, ClientGone, or Overloaded when all bodies together are too many."""
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
                stay.hold(len(chunk))
                chunks += chunk
                is_more = message["more_body"]
    except TimeoutError:
        raise SlowBody(settings.body_timeout_seconds) from None
    return bytes(chunks)


@asynccontextmanager
async def until_client_leaves(receive: Receive) -> AsyncIterator[None]:
    """Cancels what runs inside when the client closes its connection, and raises ClientGone. Only after the whole body was read."""
    worker = asyncio.current_task()
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await receive())["type"] != "http.disconnect":
            pass
        has_left = True
        if worker is not None:
            worker.cancel()

    watcher = asyncio.create_task(watch(), name="client-watch")
    try:
        yield
    except asyncio.CancelledError:
        if has_left and worker is not None and worker.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()
