"""The order of a shutdown: the fronts drain, then the engine ends. A second signal ends all at once; a deadline kills who stays."""

from collections.abc import Iterator, Sequence

from gateway.config import ServerSettings
from gateway.processes.child_process import ChildProcess, ExitStatus
from gateway.processes.control import Leave, Stop, ToChild

GRACE_SECONDS = 3.0  # beyond the fronts' delay and drain
ENGINE_SECONDS = 10.0  # to write usage, and to close models and the store
FORCED_SECONDS = 2.0  # after a second signal

Messages = Iterator[tuple[ChildProcess, ToChild]]


class GracefulShutdown:
    """Decides what to send to whom. `deadline` is when those that still run are killed, on the monotonic clock."""

    def __init__(self, engine: ChildProcess, fronts: Sequence[ChildProcess]) -> None:
        self.engine = engine
        self.fronts = fronts
        self.exit_code = 0
        self.has_begun = self.is_forced = False
        self.deadline: float | None = None

    @property
    def running(self) -> list[ChildProcess]:
        return [child for child in (*self.fronts, self.engine) if child.is_running]

    @property
    def is_over(self) -> bool:
        return self.has_begun and not self.running

    def stop(self, settings: ServerSettings, *, now: float, skip_delay: bool) -> Messages:
        """Yields the messages of a signal to stop: the first, or a further one."""
        if self.has_begun:
            yield from self.force(now)
            return
        self.has_begun = True
        delay = 0.0 if skip_delay else settings.drain_delay_seconds
        self.deadline = now + delay + settings.drain_timeout_seconds + GRACE_SECONDS
        yield self.engine, Leave(skip_delay)
        for front in self.fronts:
            yield front, Stop(skip_delay)
        yield from self.stop_engine(now)

    def fail(self, code: int, *, now: float) -> Messages:
        """Yields the messages that end all at once. The supervisor's exit code is `code`."""
        self.exit_code = code
        self.has_begun = True
        yield from self.force(now)

    def force(self, now: float) -> Messages:
        if self.is_forced:
            return
        self.is_forced = True
        self.deadline = now + FORCED_SECONDS
        for child in self.running:
            yield child, Stop(force=True)

    def on_end(self, child: ChildProcess, status: ExitStatus, now: float) -> Messages:
        """Yields the messages that follow from the end of a child, once the shutdown has begun."""
        if status.code != 0 and not self.is_forced:
            self.exit_code = self.exit_code or status.code or 1
        if child.role == "front":
            yield from self.stop_engine(now)

    def stop_engine(self, now: float) -> Messages:
        """The engine outlives the fronts: their last requests need it."""
        if not self.is_forced and self.engine.is_running and not any(front.is_running for front in self.fronts):
            self.deadline = now + ENGINE_SECONDS
            yield self.engine, Stop()

    def kill_due(self, now: float) -> None:
        """Kills those that still run at the deadline."""
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            for child in self.running:
                child.kill()
