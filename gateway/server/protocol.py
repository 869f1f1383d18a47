"""One client's connection: uvicorn's HTTP protocol with limits in time and bytes before, between and after requests.

uvicorn limits neither the time nor the size of headers, nor replies that the client doesn't read, and it answers invalid HTTP in
plain text. Bodies are limited in `gateway.api.body`.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.config import ServerSettings
from gateway.errors import GatewayError, HeadersTooLarge, InvalidValue, SlowRequest
from gateway.log import get_logger
from gateway.metrics import Metrics
from gateway.server.connection_table import AddressGroup, ConnectionTable, Refusal, too_many
from gateway.server.expectation import Expectation
from gateway.server.lingering_close import LingeringConnections
from gateway.server.log_sampler import LogSampler
from gateway.server.upgrade import RequestParser
from gateway.server.write_buffer import CoalescingTransport

KB = 1024
MAPPED = "::ffff:"  # an IPv4 client, as a socket of both families shows it
READ_BYTES = 256 * KB  # the most that one read brings, whatever it contains
FRAMING_RATIO = 8  # bytes on the wire per byte of a body in chunks of one byte; anything beyond that is trailers
HOLD_SECONDS = 0.25  # at most, while another process makes room; its answer takes a millisecond
KERNEL_BYTES = 128 * KB  # unsent bytes of a reply in the kernel: it takes more in halves of this, so that progress is visible
STUCK_SECONDS = 1.0  # if a client reads nothing for so long, its slot may go to a new connection, as the last resort
MAX_LOOKED_AT = 64  # slow readers searched for a stuck one, so that a flood of new connections costs little

log = get_logger()


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error response for a request that the application never saw. Header names are in lower case."""

    request_id: str
    headers: dict[str, str]
    body: bytes


RenderError = Callable[[GatewayError], ErrorResponse]


class BodyArrival:
    """Whether a request's body is here to its end. In the scope's state, as `arrival`: what is here need not be waited for."""

    __slots__ = ("is_whole",)

    def __init__(self) -> None:
        self.is_whole = False


class SlowReaders:
    """Connections whose clients have not read all that was sent, longest unread first. Bounds the bytes they keep in memory."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.connections: dict[HTTPProtocol, None] = {}

    def add(self, connection: "HTTPProtocol") -> None:
        self.connections[connection] = None
        num_bytes = sum(each.transport.get_write_buffer_size() for each in self.connections)
        while num_bytes > self.max_bytes:
            slowest = next(iter(self.connections))
            num_bytes -= slowest.transport.get_write_buffer_size()
            slowest.abort("unread_bytes")

    def remove(self, connection: "HTTPProtocol") -> None:
        self.connections.pop(connection, None)

    def cut_stuck(self) -> bool:
        """Aborts the reply that has been unread for longest and whose client reads nothing. Returns False if there is none."""
        stuck = next((each for each in islice(self.connections, MAX_LOOKED_AT) if each.is_stuck()), None)
        if stuck is not None:
            stuck.abort("made_room")
        return stuck is not None


class HTTPProtocol(HttpToolsProtocol):
    """uvicorn's protocol. Its `scope` is the latest request that has begun, its `cycle` the latest whose headers have arrived."""

    def __init__(  # noqa: PLR0913 - named, each of them
        self,
        *args: Any,
        settings: ServerSettings,
        metrics: Metrics,
        sampler: LogSampler,
        render_error: RenderError,
        slow_readers: SlowReaders,
        table: ConnectionTable,
        lingering: LingeringConnections,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.table = table
        self.lingering = lingering
        self.socket_transport: asyncio.Transport  # below `transport`, which uvicorn writes to
        self.lingers = False  # at its end, once everything is sent
        self.expectation: Expectation | None = None  # of the latest request whose headers have arrived
        self.arrival = BodyArrival()  # of the same request
        self.on_disconnect: list[Callable[[], None]] = []  # callbacks of requests that wait
        self.groups: tuple[AddressGroup, ...] = ()
        self.refusal: Refusal | None = None  # why it has no slot
        self.held: bytearray | None = None  # what arrived while another process makes room for it
        self.parser: RequestParser = RequestParser(self)  # type: ignore[assignment]  # it has all of httptools' that uvicorn uses
        self.settings = settings
        self.metrics = metrics
        self.sampler = sampler
        self.render_error = render_error
        self.slow_readers = slow_readers
        self.counted: Any = None  # the scope whose bytes are counted
        self.num_bytes = 0
        self.num_body_bytes = 0
        self.num_unread_bytes = 0
        self.seen_unread: tuple[int, float] | None = None  # unread bytes, and since when they have not become fewer
        self.head_timer: asyncio.TimerHandle | None = None
        self.read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.set_write_buffer_limits(high=0)  # so that pause_writing is called for every unread byte
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, KERNEL_BYTES)
        self.socket_transport = transport
        super().connection_made(CoalescingTransport(transport, on_close=self.end))
        if self.client is not None and self.client[0].startswith(MAPPED):
            self.client = self.client[0].removeprefix(MAPPED), self.client[1]
        self.refusal = self.table.enter(self)
        if self.refusal is not None and not self.groups:
            self.refuse(too_many(self.refusal), self.refusal)
        else:
            self.expect_head()

    @property
    def peer(self) -> str | None:
        return self.client[0] if self.client else None

    @property
    def is_waiting(self) -> bool:
        """Whether no request of it is being answered, and all replies have been sent."""
        return (self.cycle is None or self.cycle.response_complete) and self not in self.slow_readers.connections

    def make_room(self) -> None:
        if self.is_in_head:
            self.refuse(too_many("server_overloaded"), "made_room")
        else:
            self.metrics.http.connections_cut.labels("made_room").inc()
            self.transport.close()

    def hold(self) -> None:
        """Keeps what arrives. uvloop starts to read after `connection_made` has returned, and may have read before it is paused."""
        self.held = bytearray()
        self.loop.call_soon(self.pause_held)
        self.loop.call_later(HOLD_SECONDS, self.table.resume, self)

    def pause_held(self) -> None:
        if self.held is not None and not self.socket_transport.is_closing():
            self.socket_transport.pause_reading()

    def resume(self) -> None:
        held, self.held = self.held, None
        if not self.socket_transport.is_closing():
            self.socket_transport.resume_reading()
            if held:
                self.data_received(bytes(held))

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.held is not None:
            self.held += data
            return
        super().data_received(data)
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self.expect_head()
        elif self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None
        if cycle is None or cycle.more_body or self.is_in_head:  # Edge checks a request that came whole
            self.count(len(data))

    @property
    def is_in_head(self) -> bool:
        return self.scope is not None and (self.cycle is None or self.cycle.scope is not self.scope)

    def expect_head(self) -> None:
        """Starts the header timeout. It runs until the headers of the next request have arrived."""
        if self.head_timer is None and not self.transport.is_closing():
            self.head_timer = self.loop.call_later(self.settings.header_timeout_seconds, self.on_head_timeout)

    def count(self, num_bytes: int) -> None:
        """Counts a request's bytes from its second read on: the first, of `READ_BYTES` at most, may contain the end of another."""
        if self.counted is not self.scope:
            self.counted, self.num_bytes, self.num_body_bytes = self.scope, 0, 0
            return
        self.num_bytes += num_bytes
        most = self.settings.max_header_bytes + (0 if self.is_in_head else FRAMING_RATIO * self.num_body_bytes + READ_BYTES)
        if self.scope is not None and self.num_bytes > most and not self.transport.is_closing():
            self.fail(HeadersTooLarge(self.settings.max_header_bytes))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.is_waiting:
            self.table.wait(self)  # again, as the latest: a client that was idle for long has just begun a request

    def on_headers_complete(self) -> None:
        if self.parser.is_unsupported_upgrade:
            return
        if self.refusal is not None:
            self.refusal = self.table.assign_slot(self)  # a slot may be free by now
        self.table.work(self)
        self.arrival = BodyArrival()
        self.scope["state"] |= {"on_disconnect": self.on_disconnect, "arrival": self.arrival}
        if self.refusal is not None:
            self.scope["state"]["no_slot"] = self.refusal  # so that Edge answers only probes
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # HTTP/1.0 has no 100 (RFC 9110, 10.1.1)
        self.expectation = Expectation(self.config.loaded_app) if self.expect_100_continue else None
        self.app = self.expectation or self.config.loaded_app
        super().on_headers_complete()
        if self.refusal is not None:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.is_waiting and not self.transport.is_closing():
            self.table.wait(self)

    def on_message_complete(self) -> None:
        if not self.parser.is_unsupported_upgrade:
            self.arrival.is_whole = True
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self.num_body_bytes += len(body)
        super().on_body(body)

    def on_head_timeout(self) -> None:
        """Ends the connection. A client that sent nothing, or still sends a request that was answered, expects no reply."""
        self.head_timer = None
        if self.is_in_head:
            self.fail(SlowRequest(self.settings.header_timeout_seconds, part="headers"))
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's text, which clients need not see
        self.fail(InvalidValue("Your request is not valid HTTP."))

    def fail(self, error: GatewayError) -> None:
        """Ends the connection with an error. If a valid request came before the invalid bytes, it is answered first."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started):
            self.refuse(error)
        elif cycle.more_body:
            self.abort(error.outcome)  # the middle of a reply has no room for an error
        else:
            cycle.keep_alive = False
            self.flow.pause_reading()

    def refuse(self, error: GatewayError, reason: str | None = None) -> None:
        """Sends an error and closes. `reason` is the metric's label, if it is not the error's own code."""
        self.metrics.http.connections_cut.labels(reason or error.outcome).inc()
        answer = self.render_error(error)
        if self.sampler.has_room(error.outcome):
            log.info("connection_refused", request_id=answer.request_id, status=error.status, code=error.outcome, client=self.peer)
        headers = {"content-length": str(len(answer.body)), "connection": "close", **answer.headers}
        lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[error.status] + lines.encode() + b"\r\n" + answer.body)
        self.lingers = True
        self.transport.close()

    @property
    def may_be_sending(self) -> bool:
        """Whether the client, which has its response, may still send: more of this request, or pipelined ones.

        False for a client that waits for a 100 which was not sent, and for an idle one.
        """
        cycle = self.cycle
        if self.pipeline:
            return True
        if cycle is None or not cycle.response_complete:
            return False
        if self.expectation is not None and not self.expectation.is_continued and not cycle.body and cycle.more_body:
            return False
        return bool(cycle.more_body or not cycle.keep_alive)

    def end(self) -> None:
        """Ends the connection: replaces the transport's own `close`."""
        self.lingers = self.lingers or self.may_be_sending
        if not self.lingers or self.socket_transport.is_closing():
            self.socket_transport.close()
        elif self not in self.slow_readers.connections:
            self.linger()

    def linger(self) -> None:
        """Hands the socket over once everything is sent. For this protocol and the server the connection is closed."""
        self.lingering.add(self.socket_transport)
        self.connection_lost(None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.table.work(self)
        self.watch_reader()
        self.slow_readers.add(self)

    def is_stuck(self) -> bool:
        """Whether the client has read nothing of its reply for STUCK_SECONDS, as seen by the calls of this method."""
        num_bytes, now = self.transport.get_write_buffer_size(), self.loop.time()
        if self.seen_unread is None or num_bytes < self.seen_unread[0]:
            self.seen_unread = num_bytes, now
        return now - self.seen_unread[1] >= STUCK_SECONDS

    def watch_reader(self) -> None:
        self.num_unread_bytes = self.transport.get_write_buffer_size()
        self.read_timer = self.loop.call_later(self.settings.send_timeout_seconds, self.on_read_timeout)

    def on_read_timeout(self) -> None:
        if self.transport.get_write_buffer_size() >= self.num_unread_bytes:
            self.abort("unread_timeout")
        else:
            self.watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.forget_reader()
        if self.lingers and not self.socket_transport.is_closing():
            self.linger()
        elif self.is_waiting and not self.transport.is_closing():
            self.table.wait(self)

    def forget_reader(self) -> None:
        self.slow_readers.remove(self)
        self.seen_unread = None
        if self.read_timer is not None:
            self.read_timer.cancel()
            self.read_timer = None

    def abort(self, reason: str) -> None:
        self.metrics.http.connections_cut.labels(reason).inc()
        self.forget_reader()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.table.leave(self)
        self.forget_reader()
        if self.head_timer is not None:
            self.head_timer.cancel()
        super().connection_lost(exc)
        for tell in [*self.on_disconnect]:
            tell()
