"""One child as the supervisor sees it: its process, its control socket, and how often it has died in a row."""

import os
import selectors
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.backoff import Backoff
from gateway.processes import control
from gateway.processes.child import Role
from gateway.processes.control_socket import ControlSocket, PeerGone

STEADY_SECONDS = 5.0  # a child that has served so long is sound: what ends it later is a first death again
MAX_FAILURES = 8  # deaths in a row before a child was steady; then the gateway ends, for its own supervisor to see
PAUSES = Backoff(0.5, 15.0)
ENDING_SECONDS = 30.0  # for a child that has closed its control socket to end


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: by its own exit code, or by a signal. Neither: it could not be started."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def of(cls, status: int) -> "ExitStatus":
        """`status` is that of waitpid."""
        ended = os.waitstatus_to_exitcode(status)
        return cls(code=ended) if ended >= 0 else cls(signal=-ended)

    def describe(self) -> dict[str, object]:
        """The fields of its line in the log."""
        if self.signal is None:
            return {"exit_code": self.code}
        with suppress(ValueError):
            return {"signal": signal.Signals(self.signal).name}
        return {"signal": self.signal}


class ChildProcess:
    """A place in the gateway, and the process that has it now. `pid` is None between a death and the next start."""

    def __init__(self, role: Role, number: int) -> None:
        self.role = role
        self.number = number
        self.name = f"front-{number}" if role == "front" else role
        self.pid: int | None = None
        self.socket: ControlSocket | None = None
        self.ready_at: float | None = None  # on the monotonic clock, of this process
        self.was_ready = False  # ever, of any process in this place
        self.num_failures = 0
        self.start_at = 0.0  # when to start it, while it does not run
        self.kill_at: float | None = None
        self.has_spoken = False  # its event loop runs
        self.is_asked = False  # for samples it has not sent yet

    @property
    def is_running(self) -> bool:
        return self.pid is not None

    @property
    def is_given_up(self) -> bool:
        return self.num_failures >= MAX_FAILURES

    def on_start(self, pid: int, end: socket.socket, selector: selectors.BaseSelector) -> None:
        self.pid = pid
        self.socket = ControlSocket(end, control.from_child)
        self.selector = selector
        self.ready_at = self.kill_at = None
        self.has_spoken = self.is_asked = False
        selector.register(end, selectors.EVENT_READ, self)

    def on_ready(self, now: float) -> None:
        self.ready_at, self.was_ready = now, True

    def on_end(self, status: ExitStatus, now: float) -> None:
        """Counts the failure and plans the next start: at once after a first death, later after each further one in a row."""
        was_killed = status.signal == signal.SIGKILL and self.ready_at is not None  # by somebody, or for want of memory: no defect
        is_steady = self.ready_at is not None and now - self.ready_at >= STEADY_SECONDS
        self.num_failures = 0 if was_killed or is_steady else self.num_failures + 1
        self.start_at = now + (PAUSES.pause_seconds(self.num_failures - 1) if self.num_failures > 1 else 0.0)
        self.pid = self.kill_at = None
        self.has_spoken = False
        self.close()

    def send(self, message: control.ToChild, *, beside: socket.socket | None = None) -> None:
        """Sends a message, without waiting. One to a child that is gone is lost: its death is noticed when it is reaped."""
        if self.socket is not None:
            self.socket.queue(control.encode(message), beside)
            self.flush()
        elif beside is not None:
            beside.close()

    def flush(self) -> None:
        """Sends what the child takes now, and waits for the rest."""
        if self.socket is None:
            return
        try:
            self.socket.flush()
        except PeerGone:
            self.close()
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.socket.has_unsent else 0)
        self.selector.modify(self.socket.end, events, self)

    def receive(self, now: float) -> list[Any]:
        """The messages that have arrived. Closes the socket if the child has closed its end: then it must end soon."""
        if self.socket is None:
            return []
        try:
            return self.socket.receive()
        except PeerGone:
            self.kill_at = now + ENDING_SECONDS
            self.close()
            return []

    def close(self) -> None:
        """Closes the socket. Its place stays until it is reaped."""
        if self.socket is not None:
            self.selector.unregister(self.socket.end)
            self.socket.close()
        self.socket = None

    def abandon(self) -> None:
        """In another child, just forked: closes the socket. The selector's registrations are shared, and so left alone."""
        if self.socket is not None:
            self.socket.close()

    def kill(self) -> None:
        self.kill_at = None
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
