"""Accepts connections from sockets that several fronts share, so that each front gets its part.

Left to the event loops, whichever wakes first takes all that waits: of 16 connections opened at once one front of four often had
none. SO_REUSEPORT spreads by chance, and what waits for a front that has died waits until its next start. Here a front accepts at
once if no other has fewer connections; otherwise it leaves them to the others, and accepts after a moment what still waits.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

from gateway.background import launch
from gateway.processes.totals import Totals

# What a client waits at most, if the fronts with fewer connections are busy; so a front accepts 1,000 a second at least
DEFER_SECONDS = 0.001


class BalancedAcceptor:
    """Accepts for front `number`. The protocol of a connection counts it among `totals`' connections. Used on one event loop."""

    def __init__(
        self, sockets: Sequence[socket.socket], make_protocol: Callable[[], asyncio.Protocol], totals: Totals, number: int
    ) -> None:
        self.sockets = sockets
        self.make_protocol = make_protocol
        self.accepts, self.accepting, self.connections = (
            totals.of_front(name, number) for name in ("accepts", "accepting", "connections")
        )
        self.loop = asyncio.get_running_loop()
        self.deferred: dict[socket.socket, asyncio.TimerHandle] = {}
        self.accepts.own = 1
        for listening in sockets:
            listening.setblocking(False)
            self.loop.add_reader(listening, self.on_readable, listening)

    def has_least(self) -> bool:
        """Whether no other front that accepts has fewer connections."""
        loads = [open_ + new for open_, new in zip(self.connections.numbers, self.accepting.numbers, strict=True)]
        own = loads[self.connections.front]
        return all(own <= load or not accepts for load, accepts in zip(loads, self.accepts.numbers, strict=True))

    def on_readable(self, listening: socket.socket) -> None:
        if self.has_least():
            self.accept(listening)
            return
        self.loop.remove_reader(listening)
        self.deferred[listening] = self.loop.call_later(DEFER_SECONDS, self.resume, listening)

    def resume(self, listening: socket.socket) -> None:
        """Accepts what the others have left."""
        del self.deferred[listening]
        self.accept(listening)
        self.loop.add_reader(listening, self.on_readable, listening)

    def accept(self, listening: socket.socket) -> bool:
        """Accepts one connection: the next one may be another front's. Returns whether there was one."""
        try:
            connection, _ = listening.accept()
        except OSError:  # another front was faster, or the client has left
            return False
        connection.setblocking(False)
        self.accepting.own += 1
        launch(self.connect(connection), name="connection", is_awaited=False)
        return True

    async def connect(self, connection: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(self.make_protocol, connection)
        finally:
            self.accepting.own -= 1

    def close(self) -> None:
        """Accepts what waits, which no other front may be there to accept, and nothing after that."""
        self.accepts.own = 0
        for listening in self.sockets:
            self.loop.remove_reader(listening)
            while self.accept(listening):
                pass
        for timer in self.deferred.values():
            timer.cancel()
