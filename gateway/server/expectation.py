"""`Expect: 100-continue` (RFC 9110, 10.1.1): records whether the client was asked to send its body."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Expectation:
    """Wraps the application for one request with `Expect: 100-continue`. The 100 is sent when the application reads the body.

    A client that gets its final response first may leave the body out. Then the server can't tell where the next request begins.
    So such a response closes the connection.
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
