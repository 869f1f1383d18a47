"""Lingering close (RFC 9112, 9.6): a client that is still sending reads its answer before the connection is gone.

A socket that is closed with bytes unread is reset, and a reset takes what the client has not read yet: it meets a broken pipe where
it should read a 401 or a 413. So once the answer is sent our half is closed, and what still comes is discarded until the client has
closed its own. It need never do so: bytes, seconds and connections are bounded.
"""

import asyncio

from gateway.metrics import Metrics

MAX_LINGERING = 256  # each holds an open file, and nothing else
MAX_DISCARDED_BYTES = 256 * 1024 * 1024  # sixteen times the largest body that is taken by default
MAX_LINGER_SECONDS = 30.0  # nginx's lingering_time
SILENCE_SECONDS = 5.0  # nginx's lingering_timeout: nothing more is on its way


class LingeringConnections:
    """Those whose answer is sent. Beyond `max_connections` the one that has lingered longest is closed for the newest."""

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
        self.connections: dict[LingeringConnection, None] = {}
        metrics.http.open_connections.labels("lingering").set_function(lambda: len(self.connections))

    def add(self, transport: asyncio.Transport) -> None:
        """Half-closes it. Everything written must have been sent; whoever read from it until now hears of it no more."""
        while len(self.connections) >= self.max_connections:
            next(iter(self.connections)).close()
        connection = LingeringConnection(transport, self)
        self.connections[connection] = None
        transport.set_protocol(connection)
        try:
            transport.write_eof()
            transport.resume_reading()
        except OSError:  # reset by the client, which nobody has noticed yet
            connection.close()

    def close(self) -> None:
        """At the end of the server, which waits for none of them."""
        for connection in list(self.connections):
            connection.close()


class LingeringConnection(asyncio.Protocol):
    """Discards what it receives, until the client closes its half or a bound is met."""

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
        """At once: there is nothing left to be sent."""
        self.timer.cancel()
        self.owner.connections.pop(self, None)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.timer.cancel()
        self.owner.connections.pop(self, None)
