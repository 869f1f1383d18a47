"""Signals as bytes on a socket, for a program that waits for sockets: the self-pipe of D. J. Bernstein."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Signals:
    """The signals that have arrived. `end` is readable when there are some. One for the process, on its main thread."""

    def __init__(self) -> None:
        self.end, self.written = socket.socketpair()
        self.end.setblocking(False)
        self.written.setblocking(False)

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Takes the signals while the block runs; afterwards they have their former handlers."""
        former = {each: signal.signal(each, _is_noted) for each in HANDLED}
        wakeup = signal.set_wakeup_fd(self.written.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for each, handler in former.items():
                signal.signal(each, handler)
            self.close()

    def take(self) -> list[int]:
        """The signals since the last call, in their order."""
        with suppress(BlockingIOError):
            return list(self.end.recv(4096))
        return []

    def close(self) -> None:
        self.end.close()
        self.written.close()


def _is_noted(_signal: int, _frame: FrameType | None) -> None:
    """The interpreter has written the signal's number to the socket."""
