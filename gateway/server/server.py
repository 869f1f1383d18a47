"""uvicorn's server with a graceful shutdown in two steps, then exit code 0. A second signal ends it at once.

uvicorn alone stops accepting at once, finishes, and raises the signal again, which looks like a crash to its supervisor.
Step one serves on while `/readyz` answers 503, because load balancers take seconds to notice. Step two drains: until every admitted
request is answered, new ones get a 503, because a closed port would be a connection error at the client.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import Any, Protocol

import uvicorn

from gateway.config import ServerSettings
from gateway.metrics import Metrics
from gateway.server.connection_counts import ConnectionCounts
from gateway.server.connection_table import ConnectionTable
from gateway.server.lingering_close import LingeringConnections
from gateway.server.log_sampler import LogSampler
from gateway.server.open_files import affordable_connections
from gateway.server.protocol import HTTPProtocol, RenderError, SlowReaders

TICK_SECONDS = 0.02
LAST_WORDS_SECONDS = 0.1


class Acceptor(Protocol):
    """What accepts connections until it is closed."""

    def close(self) -> None: ...


Accept = Callable[[Sequence[socket.socket], Callable[[], asyncio.Protocol]], Acceptor]


class Server(uvicorn.Server):
    """uvicorn's server with `HTTPProtocol` for connections.

    `on_leave` is called once, when the first signal arrives; `on_drain` when new requests are to be refused. `is_idle` says that
    every admitted request is answered. `render_error` makes the response to a request that the application never saw. Without
    `takes_signals` only `stop` and `force_exit` end it: another process gets the signals. Where several processes
    share the port, `accept` accepts connections for this one, and `counts` are of all of them.
    """

    def __init__(  # noqa: PLR0913 - named, each of them
        self,
        app: Any,
        settings: ServerSettings,
        *,
        metrics: Metrics,
        render_error: RenderError,
        sampler: LogSampler | None = None,
        on_leave: Callable[[], None],
        on_drain: Callable[[], None],
        is_idle: Callable[[], bool],
        takes_signals: bool = True,
        accept: Accept | None = None,
        counts: ConnectionCounts | None = None,
    ) -> None:
        self.takes_signals = takes_signals
        self.accept = accept
        self.slow_readers = slow_readers = SlowReaders(settings.max_unsent_bytes)
        self.sampler = sampler or LogSampler(metrics)
        logging.getLogger("uvicorn.error").addFilter(_is_not_logged_by_protocol)
        self.table = table = ConnectionTable(settings, metrics, cut_slowest=slow_readers.cut_stuck, counts=counts)
        self.lingering = LingeringConnections(metrics)
        protocol = partial(
            HTTPProtocol,
            settings=settings,
            metrics=metrics,
            sampler=self.sampler,
            render_error=render_error,
            slow_readers=slow_readers,
            table=table,
            lingering=self.lingering,
        )
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                http=protocol,  # type: ignore[arg-type]
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # Edge reads them itself, from trusted proxies alone
                timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]  # it goes to call_later
            )
        )
        self.on_leave = on_leave
        self.on_drain = on_drain
        self.is_idle = is_idle
        self.is_signalled = False  # a signal to stop has arrived
        self.apply_settings(settings)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.table.limit_own(affordable_connections(self.table.max_own))
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does it, or by `accept`."""
        if self.accept is None:
            await super().startup(sockets)
            return
        kind: Any = self.config.http_protocol_class
        protocol = partial(kind, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        self.servers = [self.accept(sockets or [], protocol)]  # type: ignore[list-item]  # of its methods only `close` is called
        self.started = True

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        with super().capture_signals() if self.takes_signals else nullcontext():
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a signal handler
        """Only schedules the stop on the loop. It interrupts the loop's thread anywhere, even while that has the log's lock: one
        in a dozen stops under load deadlocked when this logged.
        """
        if self.is_signalled or self.should_exit:
            self.force_exit = True
            return
        self.is_signalled = True
        self.loop.call_soon_threadsafe(partial(self.stop, skip_delay=sig == signal.SIGINT))

    def apply_settings(self, settings: ServerSettings) -> None:
        """Applies the delay and the timeout that a later stop uses."""
        self.drain_delay_seconds = settings.drain_delay_seconds
        self.drain_timeout_seconds = settings.drain_timeout_seconds

    def stop(self, *, skip_delay: bool = False) -> None:
        """Starts the shutdown; idempotent. `skip_delay` skips the load-balancer delay (Ctrl-C, a model that cannot be loaded)."""
        if self.should_exit:
            return
        if skip_delay:
            self.drain_delay_seconds = 0
        self.on_leave()
        self.should_exit = True

    async def main_loop(self) -> None:
        await super().main_loop()
        loop = asyncio.get_running_loop()
        await self.wait_until(lambda: False, loop.time() + self.drain_delay_seconds)
        self.on_drain()
        deadline = loop.time() + self.drain_timeout_seconds
        await self.wait_until(self.is_idle, deadline)
        # Replies may still be on their way out. uvicorn's type says int, its code takes any number.
        self.config.timeout_graceful_shutdown = max(TICK_SECONDS, deadline - loop.time())  # type: ignore[assignment]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the port first. So a client that connected just before, and whose request is unread, still gets a response."""
        for server in self.servers:
            server.close()
        self.servers = []  # uvicorn would wait for them, and from Python 3.12 on for all their clients, even after a second signal
        for listening in sockets or []:
            listening.close()
        if not self.force_exit:
            await asyncio.sleep(LAST_WORDS_SECONDS)
        await super().shutdown(sockets)
        self.lingering.close()

    async def wait_until(self, is_true: Callable[[], bool], deadline: float) -> None:
        """Serves on until `is_true`, the deadline or a second signal."""
        loop = asyncio.get_running_loop()
        while not (is_true() or self.force_exit) and loop.time() < deadline:
            await asyncio.sleep(TICK_SECONDS)
            await self.on_tick(0)  # renews the Date header


def _is_not_logged_by_protocol(record: logging.LogRecord) -> bool:
    """Drops uvicorn's warning of invalid HTTP, which a client can cause without bound; `HTTPProtocol` logs a sample of them."""
    return not str(record.msg).startswith(("Invalid HTTP request", "Unsupported upgrade", "No supported WebSocket"))
