"""A watchdog for work on a database connection. A call that blocks in a driver cannot be cancelled, so its connection is cut.

connection   cut by
PostgreSQL   shutting down its socket, through a duplicate: the driver then reads the end of the stream
SQLite       sqlite3_interrupt, which ends the statement
"""

import errno
import math
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from gateway.background import BackgroundThread

Cut = Callable[[], None]


class WorkDeadline:
    """A context around one piece of work, used on its thread. `has_cut` tells whether its deadline passed."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.due = math.inf
        self.cut: Cut = nothing
        self.socket: socket.socket | None = None
        self.is_over = False
        self.has_cut = False
        self.seconds = 0.0
        self.thread = BackgroundThread("store-watch", self.keep, may_end=True)

    def __enter__(self) -> "WorkDeadline":
        """Starts the watchdog's thread. Raises OSError if the system gives no more threads."""
        try:
            self.thread.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, "no more threads") from error
        return self

    def expect(self, seconds: float) -> None:
        """Sets the deadline for the next heartbeat, `seconds` from now."""
        with self.changed:
            self.seconds, self.due = seconds, time.monotonic() + seconds
            self.changed.notify()

    def over(self, connection: Any) -> None:
        """Makes `connection` the one to be cut."""
        with self.changed:
            self.let_go()
            if isinstance(connection, sqlite3.Connection):
                self.cut = connection.interrupt
            else:
                self.socket = socket.socket(fileno=os.dup(connection.pgconn.socket))
                self.cut = self.shut_down
            self.has_cut = False

    def forget(self) -> None:
        """Clears the connection, the deadline and `has_cut`."""
        with self.changed:
            self.let_go()
            self.due, self.has_cut = math.inf, False

    def shut_down(self) -> None:
        if self.socket is not None:
            self.socket.shutdown(socket.SHUT_RDWR)

    def let_go(self) -> None:
        self.cut = nothing
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def keep(self) -> None:
        with self.changed:
            while not self.is_over:
                remaining = self.due - time.monotonic()
                if remaining > 0:
                    self.changed.wait(None if remaining == math.inf else remaining)
                    continue
                self.due, self.has_cut = math.inf, True
                with suppress(OSError, sqlite3.Error):  # the connection ended by itself meanwhile
                    self.cut()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self.changed:
            self.is_over = True
            self.let_go()
            self.changed.notify()


def nothing() -> None:
    """Does nothing: there is no connection to cut."""
