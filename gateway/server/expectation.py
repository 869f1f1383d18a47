"""`Expect: 100-continue` (RFC 9110, 10.1.1): whether a client was told to send its body."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Expectation:
    """Wraps the application for one request that expects to be told. Asking for the body is what tells it.

    A client that has its answer instead may keep the body to itself, and nobody can tell where its next request would begin. So
    such an answer ends the connection.
    """

    def __init__(self, app: Callable[[Any, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        self.is_continued = False

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        async def receive_body() -> Message:
            self.is_continued = True
            return await receive()

        async def send_and_end(message: Message) -> None:
            if message["type"] == "http.response.start" and not self.is_continued:
                others = [header for header in message["headers"] if header[0] not in {b"connection", b"keep-alive"}]
                message = {**message, "headers": [*others, (b"connection", b"close")]}
            await send(message)

        await self.app(scope, receive_body, send_and_end)
