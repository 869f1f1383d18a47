"""The supervisor: forks the engine and the fronts, starts them anew when they die, and ends them in order.

One thread and no event loop: it waits for its children's sockets and for signals with `selectors`, so it may fork at any time.
"""

import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from gateway import log as logging
from gateway.config import Config, ConfigSource
from gateway.log import get_logger
from gateway.metrics import Metrics
from gateway.processes import control
from gateway.processes.child import EXIT_DEFECT, EXIT_WRONG, Child, Role, fork, live
from gateway.processes.child_process import ChildProcess, ExitStatus
from gateway.processes.listeners import Listeners
from gateway.processes.shutdown import GracefulShutdown, Messages
from gateway.processes.signals import Signals
from gateway.processes.sums import Sums
from gateway.processes.totals import Totals
from gateway.reload.watcher import has_terminal

WAIT_SECONDS = 60.0  # at most for a signal or a message

log = get_logger()

Run = Callable[[Child], None]


class Supervisor:
    """`runs` are what the children do until they end, by role. Used once, on the main thread."""

    def __init__(
        self, config: Config, source: ConfigSource, listeners: Listeners, *, num_fronts: int, runs: Mapping[Role, Run]
    ) -> None:
        self.config = config
        self.source = source
        self.listeners = listeners
        self.runs = runs
        self.totals = Totals(num_fronts)
        self.metrics = Metrics()
        for role in runs:
            self.metrics.process.process_restarts.labels(role)  # starts at 0, so that a rate includes the first one
        self.sums = Sums(self.metrics)
        self.engine = ChildProcess("engine", 0)
        self.fronts = [ChildProcess("front", number) for number in range(num_fronts)]
        self.children = [self.engine, *self.fronts]
        self.shutdown = GracefulShutdown(self.engine, self.fronts)
        self.had_terminal = has_terminal()
        self.is_reload_wanted = False  # since a SIGHUP, until an engine that runs is told
        self.on_listening: Callable[[], object] | None = None  # called once, when a front accepts connections

    def run(self) -> int:
        """Runs the gateway until it ends. Returns the exit code."""
        gc.collect()
        gc.freeze()  # so that a child's collections do not copy the pages that all share
        self.signals = Signals()
        with selectors.DefaultSelector() as self.selector, self.signals.handled():
            self.selector.register(self.signals.end, selectors.EVENT_READ)
            try:
                while not self.shutdown.is_over:
                    self.start_due()
                    self.send_reload()
                    self.wait()
                    self.reap()
                    self.send_sums()
                    self.kill_due()
            finally:
                for child in self.children:
                    child.kill()
        return self.shutdown.exit_code

    @property
    def now(self) -> float:
        return time.monotonic()

    def waiting(self) -> list[ChildProcess]:
        """The children to start, now or later."""
        return [] if self.shutdown.has_begun else [child for child in self.children if not child.is_running]

    def start_due(self) -> None:
        """Starts the children whose time has come: the engine first."""
        for child in self.waiting():
            if child.start_at <= self.now:
                self.start(child)
        self.metrics.process.processes.labels("engine").set(self.engine.is_running)
        self.metrics.process.processes.labels("front").set(sum(front.is_running for front in self.fronts))

    def start(self, child: ChildProcess) -> None:
        """Forks a child, and links it to those that it speaks with."""
        try:
            pid, end = fork(lambda end: self.become(child, end))
        except OSError as error:
            child.on_end(ExitStatus(), self.now)
            log.warning("process_not_started", process=child.name, reason=error.strerror)
            if child.is_given_up:
                self.give_up(child, EXIT_DEFECT)
            return
        child.on_start(pid, end, self.selector)
        log.info("process_started", process=child.name, pid=pid)
        for front in self.fronts if child is self.engine else [child]:
            if front.is_running and self.engine.is_running:
                self.link(front)

    def become(self, child: ChildProcess, end: socket.socket) -> NoReturn:
        """In the forked process: closes what belongs to the supervisor and to other children, and lives as this child."""
        sockets = self.listeners.of_engine if child is self.engine else self.listeners.of_fronts
        self.selector.close()
        for other in self.children:
            other.abandon()
        self.signals.close()
        self.listeners.release(kept=sockets)
        own = Child(
            role=child.role, number=child.number, num_fronts=len(self.fronts), config=self.config, source=self.source,
            sockets=tuple(sockets), urls=tuple(self.listeners.urls), totals=self.totals, control=end,
        )  # fmt: skip
        live(own, self.runs[child.role])

    def link(self, front: ChildProcess) -> None:
        """Gives the engine and a front a new socket to each other."""
        for child, end in zip((self.engine, front), socket.socketpair(), strict=True):
            child.send(control.LinkHeader(front.number), beside=end)

    def wait(self) -> None:
        """Waits for signals, messages, or the next thing to do by the clock."""
        due = [child.start_at for child in self.waiting()]
        kills = [child.kill_at for child in self.children]
        deadlines = [*due, *kills, self.sums.deadline, self.shutdown.deadline, self.now + WAIT_SECONDS]
        deadline = min(deadline for deadline in deadlines if deadline is not None)
        for key, events in self.selector.select(max(0.0, deadline - self.now)):
            if key.data is None:
                self.on_signals()
                continue
            if events & selectors.EVENT_WRITE:
                key.data.flush()
            self.receive(key.data)

    def receive(self, child: ChildProcess) -> bool:
        """Handles what the child has sent. Returns whether there may be more."""
        messages = child.receive(self.now)
        child.has_spoken = child.has_spoken or bool(messages)
        for message in messages:
            self.on_message(child, message)
        return bool(messages)

    def on_message(self, child: ChildProcess, message: Any) -> None:
        match message:
            case control.Ready():
                child.on_ready(self.now)
                log.info("process_ready", process=child.name, pid=child.pid)
                if child is not self.engine and self.on_listening is not None:
                    self.on_listening()
                    self.on_listening = None
            case control.Accepted(config):
                if config.log != self.config.log:
                    logging.configure(level=config.log.level, line_format=config.log.format)
                self.config = config
            case control.Samples(families):
                child.is_asked = False
                self.sums.put(child.name, families)
            case control.SumWanted(number):
                self.sums.want(number, [each for each in self.children if each.has_spoken], self.now)
            case control.MakeRoom():
                self.find_room(message)
            case control.RoomMade(asking):
                self.fronts[asking].send(message)

    def find_room(self, wanted: control.MakeRoom) -> None:
        """Asks the next front for room, the one with most connections first. The last has told that there is none."""
        connections = self.totals.read("connections")
        others = [front for front in self.fronts if front.has_spoken and front.number not in wanted.tried]
        if others:
            max(others, key=lambda front: connections[front.number]).send(wanted)
        else:
            self.fronts[wanted.asking].send(control.RoomMade(wanted.asking))

    def send_reload(self) -> None:
        if self.is_reload_wanted and self.engine.is_running:
            self.is_reload_wanted = False
            self.engine.send(control.Reload())

    def send_sums(self) -> None:
        for number in self.sums.finished(self.now):
            self.engine.send(control.Sum(number, self.sums.total()))

    def on_signals(self) -> None:
        for arrived in self.signals.take():
            is_hang_up = arrived == signal.SIGHUP
            if arrived in {signal.SIGTERM, signal.SIGINT} or (is_hang_up and self.had_terminal and not has_terminal()):
                self.send(self.shutdown.stop(self.config.server, now=self.now, skip_delay=arrived == signal.SIGINT))
                self.listeners.release(kept=[])  # else what connects after the last front has closed would wait for nobody
            elif is_hang_up:
                self.is_reload_wanted = True

    def send(self, messages: Messages) -> None:
        for child, message in messages:
            child.send(message)

    def reap(self) -> None:
        """Handles the deaths of children."""
        for pid, status in _ended_processes():
            for child in self.children:
                if child.pid == pid:
                    self.on_end(child, ExitStatus.of(status))

    def on_end(self, child: ChildProcess, status: ExitStatus) -> None:
        while self.receive(child):
            pass  # what it said last counts: its samples, and that it was ready
        is_first_start = not child.was_ready and status.code is not None
        child.on_end(status, self.now)
        self.sums.end(child)
        if child is self.engine:
            self.sums.wanted.clear()  # nobody waits for them any more
        else:
            self.totals.forget(child.number)
        if self.shutdown.has_begun:
            self.send(self.shutdown.on_end(child, status, self.now))
        elif is_first_start:
            self.give_up(child, status.code or EXIT_DEFECT)
        elif child.is_given_up:
            log.error("process_gave_up", process=child.name, **status.describe(), deaths_in_a_row=child.num_failures)
            self.give_up(child, EXIT_DEFECT)
        else:
            self.metrics.process.process_restarts.labels(child.role).inc()
            pause_seconds = round(max(0.0, child.start_at - self.now), 1)
            log.error("process_died", process=child.name, **status.describe(), restart_in_seconds=pause_seconds)

    def give_up(self, child: ChildProcess, code: int) -> None:
        """Ends everything at once, with this exit code: a supervisor of the gateway may know more."""
        if code != EXIT_WRONG:  # else the child has said in one line what the operator must fix
            log.error("giving_up", process=child.name, exit_code=code)
        self.send(self.shutdown.fail(code, now=self.now))

    def kill_due(self) -> None:
        """Kills those that should have ended by now."""
        self.shutdown.kill_due(self.now)
        for child in self.children:
            if child.kill_at is not None and self.now >= child.kill_at:
                child.kill()


def _ended_processes() -> Iterator[tuple[int, int]]:
    """Yields pid and status of each child that has ended. As a container's first process, it also takes other programs' orphans."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended
