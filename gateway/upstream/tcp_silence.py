"""Dead peer detection: finds connections whose peer no longer acknowledges what it is sent. A dead host sends no FIN or RST.

TCP_USER_TIMEOUT would leave this to the kernel, which then also ends connections to a server that is alive and reads slowly. So
connections in use are checked once a second by TCP_INFO, which Linux has; elsewhere nothing is found.
"""

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from gateway.tcp import notice_silent_peer

LOOK_SECONDS = 1.0
# struct tcp_info of linux/tcp.h: from its third byte retransmits; from its 24th unacked; from its 56th last_ack_recv, in ms.
INFO = struct.Struct("=2xB21xI28xI")


class Silence:
    """Watches one pool's sockets. Shuts down one that retransmits for `seconds` without an acknowledgement; calls `on_found`."""

    def __init__(self, seconds: float, on_found: Callable[[], None]) -> None:
        self.seconds = seconds
        self.on_found = on_found
        self.sockets: WeakSet[socket.socket] = WeakSet()
        self.since: WeakKeyDictionary[socket.socket, float] = WeakKeyDictionary()
        self.timer: asyncio.TimerHandle | None = None

    def made_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Makes a socket for a resolved address, as getaddrinfo gives it."""
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        notice_silent_peer(made, self.seconds)
        self.sockets.add(made)
        return made

    def start(self) -> None:
        self.timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self.look)

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def look(self) -> None:
        self.start()
        silent = [sock for sock in self.sockets if self.is_silent(sock, time.monotonic())]
        for sock in silent:
            self.sockets.discard(sock)
            sock.shutdown(socket.SHUT_RDWR)  # its reader finds the end of the stream
        if silent:
            self.on_found()

    def is_silent(self, sock: socket.socket, now: float) -> bool:
        quiet_seconds = unanswered_seconds(sock)
        if quiet_seconds is None or quiet_seconds < now - self.since.get(sock, now):
            self.since.pop(sock, None)
            return False
        return now - self.since.setdefault(sock, now) >= self.seconds


def unanswered_seconds(sock: socket.socket) -> float | None:
    """Seconds since the last acknowledgement. Returns None unless something was retransmitted since and is unacknowledged."""
    if sys.platform != "linux" or sock.fileno() < 0:
        return None
    try:
        retransmits, unacked, quiet_ms = INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO.size))
    except OSError:
        return None
    return quiet_ms / 1000 if retransmits and unacked else None
