"""A child of the supervisor: what it gets when it is forked, and its life until its exit code."""

import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, NoReturn

from gateway.background import BackgroundThread
from gateway.config import Config, ConfigSource
from gateway.errors import OperatorError
from gateway.log import get_logger, name_process
from gateway.processes.totals import Totals

Role = Literal["engine", "front"]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # blocked around a fork, so that each meets the right process's handler
EXIT_DEFECT = 1
EXIT_WRONG = 2  # the operator must fix something: the code of `gateway serve` in one process
ORPHAN_SECONDS = 1.5  # to end in an orderly way once the supervisor is gone

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What a process gets at its fork. `sockets` and `control` are its own; nobody else reads from them.

    `config` is the last one that was accepted. `sockets` are a front's listening sockets, and of the engine those of the metrics'
    own port; `urls` are the addresses that the gateway listens on.
    """

    role: Role
    number: int  # of a front, from 0; the engine's is 0
    num_fronts: int
    config: Config
    source: ConfigSource
    sockets: tuple[socket.socket, ...]
    urls: tuple[str, ...]
    totals: Totals
    control: socket.socket

    @property
    def name(self) -> str:
        return f"front-{self.number}" if self.role == "front" else self.role


def fork(live_on: Callable[[socket.socket], NoReturn]) -> tuple[int, socket.socket]:
    """Forks a process that runs `live_on` with its end of a new control socket.

    Returns its pid and the supervisor's end. Raises OSError if the system gives no more processes or files.
    """
    ours, theirs = socket.socketpair()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                live_on(theirs)
            finally:
                os._exit(EXIT_DEFECT)  # an error must not return into the supervisor's frames
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return pid, ours


def live(child: Child, run: Callable[[Child], None]) -> NoReturn:
    """Runs the child until `run` returns, and ends the process. Called right after the fork.

    Signals are the supervisor's: Ctrl-C and a closed terminal send theirs to every process, so a child only ignores them.
    """
    code = EXIT_DEFECT
    try:
        signal.set_wakeup_fd(-1)
        for ours in SIGNALS:
            signal.signal(ours, _ignore)  # a handler, not SIG_IGN, which programs that the child starts would inherit
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        name_process(child.name)
        _show_name(child.name)
        BackgroundThread("supervisor-watch", lambda: _end_with_supervisor(child.control), may_end=True).start()
        run(child)
        code = 0
    except OperatorError as error:
        sys.stderr.write(f"gateway: {error}\n")
        code = EXIT_WRONG
    except BaseException:  # the boundary of the process: it ends with a code, and one line says why
        log.exception("process_failed")
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    """Ends the process without returning through the supervisor's frames, whose clean-up is not the child's.

    Waits for no thread: what must be done has an owner that has waited for it. The thread that makes a model's second network may
    take half a minute on a busy machine, for nothing.
    """
    try:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """The supervisor gets this signal too, and tells its children what follows from it."""


def _end_with_supervisor(control: socket.socket) -> None:
    """Waits until the supervisor is gone. The kernel then ends this process, unless it ends by itself in ORPHAN_SECONDS."""
    hung_up = select.poll()
    hung_up.register(control, 0)  # without events, it only returns for a closed or broken socket
    hung_up.poll()
    signal.setitimer(signal.ITIMER_REAL, ORPHAN_SECONDS)  # SIGALRM's default ends it, even if no Python code runs any more


def _show_name(name: str) -> None:
    """Shows the role in `top` and `ps -o comm`; only Linux has this file."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(f"gateway-{name}", encoding="ascii")
