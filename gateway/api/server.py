"""uvicorn with a stop of our own, in two steps, and then exit code 0; a second signal ends at once.

uvicorn alone stops accepting at once, finishes, and then ends by the very signal, which looks like a crash to whoever started it.
Here the first step serves on while `/readyz` says no, for balancers take seconds to hear of it; the second refuses new work in
words, where a closed port would be an error at the client, until what was let in is answered.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api import failures
from gateway.api.record import OPENAI_VERSION, request_id_from
from gateway.config import ServerSettings
from gateway.errors import InvalidValue, OperatorError

BACKLOG = 2048
TICK_SECONDS = 0.02
LAST_WORDS_SECONDS = 0.1
KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of common proxies, which would else reuse a connection as it closes


class Corked(asyncio.Transport):
    """Head and body of a reply leave together: uvicorn writes them apart, and each write wakes the client for 20 microseconds."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.pending: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.pending:
            self.loop.call_soon(self.flush)
        self.pending.append(data)

    def flush(self) -> None:
        pending, self.pending = self.pending, []
        if pending:
            self.transport.writelines(pending)

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self.transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.set_protocol(protocol)


class Protocol(HttpToolsProtocol):
    """uvicorn answers what is no HTTP in plain text; here too in the contract's shape."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Corked(transport))

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words, which clients need not read
        body = failures.body(InvalidValue("Your request is not valid HTTP."))
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: {failures.JSON}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        request_id = f"x-request-id: {request_id_from(None)}\r\nopenai-version: {OPENAI_VERSION}\r\n\r\n"
        self.transport.write((head + request_id).encode() + body)
        self.transport.close()


class Server(uvicorn.Server):
    """`on_leave` is called once, when the first signal arrives; `on_drain` when new work is to be refused; `is_idle` says that
    nothing which was let in is unanswered."""

    def __init__(
        self,
        app: Any,
        settings: ServerSettings,
        *,
        on_leave: Callable[[], None],
        on_drain: Callable[[], None],
        is_idle: Callable[[], bool],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                http=Protocol,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing here asks for the client's address
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        self.on_leave = on_leave
        self.on_drain = on_drain
        self.is_idle = is_idle
        self.drain_delay_seconds = settings.drain_delay_seconds
        self.drain_timeout_seconds = settings.drain_timeout_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a signal handler
        if self.should_exit:
            self.force_exit = True
        else:
            self.stop(is_waited_for=sig == signal.SIGINT)

    def stop(self, *, is_waited_for: bool = False) -> None:
        """Begins the end, once. Who pressed Ctrl-C, or whose model cannot be loaded, waits for no balancer."""
        if self.should_exit:
            return
        if is_waited_for:
            self.drain_delay_seconds = 0
        self.on_leave()
        self.should_exit = True

    async def main_loop(self) -> None:
        await super().main_loop()
        loop = asyncio.get_running_loop()
        await self.until(lambda: False, loop.time() + self.drain_delay_seconds)
        self.on_drain()
        deadline = loop.time() + self.drain_timeout_seconds
        await self.until(self.is_idle, deadline)
        # Replies may still be on their way out. uvicorn's type says int, its code takes any number.
        self.config.timeout_graceful_shutdown = max(TICK_SECONDS, deadline - loop.time())  # type: ignore[assignment]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The port closes first: who connected just before, and whose request is still unread, is told in words too."""
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        if not self.force_exit:
            await asyncio.sleep(LAST_WORDS_SECONDS)
        await super().shutdown(sockets)

    async def until(self, is_true: Callable[[], bool], deadline: float) -> None:
        """Serves on until then, or until a second signal."""
        loop = asyncio.get_running_loop()
        while not (is_true() or self.force_exit) and loop.time() < deadline:
            await asyncio.sleep(TICK_SECONDS)
            await self.on_tick(0)  # renews the Date header


def bound_socket(settings: ServerSettings) -> socket.socket:
    """Raises OperatorError saying why the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        errno = getattr(error, "errno", None)
        reason = os.strerror(errno) if errno and errno > 0 else "it is not a valid address"
        raise OperatorError(f"cannot listen on {settings.host}:{settings.port}: {reason}") from None
