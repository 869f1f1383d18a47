"""uvicorn with a stop of our own, in two steps, and then exit code 0; a second signal ends at once.

uvicorn alone stops accepting at once, finishes, and then ends by the very signal, which looks like a crash to whoever started it.
Here the first step serves on while `/readyz` says no, for balancers take seconds to hear of it; the second refuses new work in
words, where a closed port would be an error at the client, until what was let in is answered.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from gateway.config import ServerSettings
from gateway.metrics import Metrics
from gateway.server.connection_table import ConnectionTable
from gateway.server.lingering_close import LingeringConnections
from gateway.server.log_sampler import LogSampler
from gateway.server.open_files import affordable_connections
from gateway.server.protocol import HTTPProtocol, RenderError, SlowReaders

TICK_SECONDS = 0.02
LAST_WORDS_SECONDS = 0.1


class Server(uvicorn.Server):
    """uvicorn's server with connections of our own.

    `on_leave` is called once, when the first signal arrives; `on_drain` when new work is to be refused; `is_idle` says that nothing
    which was let in is unanswered. `render_error` makes what a client is told whose request no application saw.
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
    ) -> None:
        self.slow_readers = slow_readers = SlowReaders(settings.max_unsent_bytes)
        self.sampler = sampler or LogSampler(metrics)
        logging.getLogger("uvicorn.error").addFilter(is_not_told_by_us)
        self.table = table = ConnectionTable(settings, metrics, cut_slowest=slow_readers.cut_stuck)
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
                proxy_headers=False,  # the edge reads them itself, and believes whom it may
                timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]  # it goes to call_later
            )
        )
        self.on_leave = on_leave
        self.on_drain = on_drain
        self.is_idle = is_idle
        self.is_signalled = False  # by a signal, to stop
        self.apply_settings(settings)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.table.max_connections = affordable_connections(self.table.max_connections)
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a signal handler
        """Only leaves word for the loop. It runs between any two steps of the loop's thread, which may hold the log's lock just
        then: a stop under load that logged from here waited for itself for ever, one in a dozen.
        """
        if self.is_signalled or self.should_exit:
            self.force_exit = True
            return
        self.is_signalled = True
        self.loop.call_soon_threadsafe(partial(self.stop, skip_delay=sig == signal.SIGINT))

    def apply_settings(self, settings: ServerSettings) -> None:
        """What a stop takes from now on."""
        self.drain_delay_seconds = settings.drain_delay_seconds
        self.drain_timeout_seconds = settings.drain_timeout_seconds

    def stop(self, *, skip_delay: bool = False) -> None:
        """Begins the end, once. Who pressed Ctrl-C, or whose model cannot be loaded, waits for no balancer."""
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
        """The port closes first: who connected just before, and whose request is still unread, is told in words too."""
        for server in self.servers:
            server.close()
        self.servers = []  # uvicorn would wait for them; from Python 3.12 on for each of their clients, second signal or not
        for listening in sockets or []:
            listening.close()
        if not self.force_exit:
            await asyncio.sleep(LAST_WORDS_SECONDS)
        await super().shutdown(sockets)
        self.lingering.close()

    async def wait_until(self, is_true: Callable[[], bool], deadline: float) -> None:
        """Serves on until then, or until a second signal."""
        loop = asyncio.get_running_loop()
        while not (is_true() or self.force_exit) and loop.time() < deadline:
            await asyncio.sleep(TICK_SECONDS)
            await self.on_tick(0)  # renews the Date header


def is_not_told_by_us(record: logging.LogRecord) -> bool:
    """uvicorn warns of each request that is no HTTP, as fast as a stranger sends them; `HTTPProtocol` tells of the first."""
    return not str(record.msg).startswith(("Invalid HTTP request", "Unsupported upgrade", "No supported WebSocket"))
