"""Lingering close (RFC 9112, 9.6): a client that is still sending can read its response before the connection is closed.

A socket that is closed with unread bytes is reset. A reset discards what the client has not read yet, so the client gets a broken
pipe and not its 401 or 413. So the server sends the response, closes its own half, and discards what it receives until the client
closes the other half. A client may never do so: bytes, seconds and connections are bounded.
"""

import asyncio

from gateway.metrics import Metrics

MAX_LINGERING = 256  # each costs an open file, and nothing else
MAX_DISCARDED_BYTES = 256 * 1024 * 1024  # sixteen times the default max_body_bytes
MAX_LINGER_SECONDS = 30.0  # nginx's lingering_time
SILENCE_SECONDS = 5.0  # nginx's lingering_timeout: the client sends no more


class LingeringConnections:
    """Connections whose response is sent. Beyond `max_connections` a new one closes the one that has lingered longest."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        max_connections: int = MAX_LINGERING,
        max_bytes: int = MAX_DISCARDED_BYTES,
        max_seconds: float = MAX_LINGER_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self.max_connections = max_connections
        self.max_bytes = max_bytes
        self.max_seconds = max_seconds
        self.silence_seconds = silence_seconds
        self.connections: dict[_LingeringConnection, None] = {}
        self.is_closed = False
        metrics.http.open_connections.labels("lingering").set_function(lambda: len(self.connections))

    def add(self, transport: asyncio.Transport) -> None:
        """Half-closes a connection. All that was written must have been sent. Its former protocol gets no more callbacks.

        At the server's end it is closed at once: requests that were cancelled there end after `close`.
        """
        if self.is_closed:
            transport.abort()
            return
        while len(self.connections) >= self.max_connections:
            next(iter(self.connections)).close()
        connection = _LingeringConnection(transport, self)
        self.connections[connection] = None
        transport.set_protocol(connection)
        try:
            transport.write_eof()
            transport.resume_reading()
        except OSError:  # the client has reset it, and asyncio has not noticed yet
            connection.close()

    def close(self) -> None:
        """Closes all at the server's end, which waits for none of them, and those that come later."""
        self.is_closed = True
        for connection in list(self.connections):
            connection.close()


class _LingeringConnection(asyncio.Protocol):
    """Discards what it receives, until the client closes its half or a bound is reached."""

    def __init__(self, transport: asyncio.Transport, owner: LingeringConnections) -> None:
        self.transport = transport
        self.owner = owner
        self.loop = asyncio.get_running_loop()
        self.num_bytes = 0
        self.received_at = self.loop.time()
        self.deadline = self.received_at + owner.max_seconds
        self.timer = self.loop.call_later(min(owner.silence_seconds, owner.max_seconds), self.on_timer)

    def data_received(self, data: bytes) -> None:
        self.received_at = self.loop.time()
        self.num_bytes += len(data)
        if self.num_bytes > self.owner.max_bytes:
            self.close()

    def on_timer(self) -> None:
        now, due = self.loop.time(), min(self.received_at + self.owner.silence_seconds, self.deadline)
        if now >= due:
            self.close()
        else:
            self.timer = self.loop.call_at(due, self.on_timer)

    def close(self) -> None:
        """Closes at once: there is nothing left to send."""
        self.timer.cancel()
        self.owner.connections.pop(self, None)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.timer.cancel()
        self.owner.connections.pop(self, None)
