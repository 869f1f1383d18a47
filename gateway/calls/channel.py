"""A duplex connection of two processes: frames of messages, numbered calls and their answers.

What is sent within one turn of the event loop goes out in one write, so that a busy process pays for one system call and not for
a hundred.
"""

import asyncio
import itertools
import socket
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from gateway.calls.framing import PREFIX, FrameTooLarge, sizes
from gateway.calls.message import CancelCall, encode
from gateway.errors import Overloaded
from gateway.log import get_logger

MAX_OUTSTANDING = 16_384  # calls of one channel; admission lets in fewer, so a bound for defects only
MAX_UNSENT_BYTES = 64 << 20  # of messages that the other process has not read
PATIENT_SECONDS = 0.005  # at most, until a message is sent that is not urgent

Payload: TypeAlias = bytes | memoryview
Answer: TypeAlias = tuple[Any, bytes]

log = get_logger()


class ChannelClosed(ConnectionError):
    """The other process is gone. What it did of a call is unknown."""


class Channel(asyncio.Protocol):
    """One end. `decoder` decodes what the other end sends; `on_message` gets every message that answers no call of this end.

    That may be a late answer to a call that was cancelled. `on_lost` is called once, after every waiting call has failed with
    ChannelClosed. The two ends number their calls apart: the one that `calls_first` has the odd numbers. `is_full` is set while
    MAX_UNSENT_BYTES wait for the other end to read: begin no calls then.
    """

    def __init__(
        self,
        decoder: "msgspec.msgpack.Decoder[Any]",
        *,
        on_message: Callable[[Any, bytes], None],
        on_lost: Callable[[], None] = lambda: None,
        calls_first: bool = True,
    ) -> None:
        self.decode = decoder.decode
        self.on_message = on_message
        self.on_lost = on_lost
        self.transport: asyncio.Transport | None = None
        self.loop = asyncio.get_running_loop()
        self.numbers = itertools.count(1 if calls_first else 2, 2)
        self.waiting: dict[int, asyncio.Future[Answer]] = {}
        self.parts: list[Payload] = []  # to be sent together
        self.is_due = False  # at the end of this turn of the loop
        self.timer: asyncio.TimerHandle | None = None
        self.received = bytearray()  # the beginning of a frame
        self.needed = PREFIX.size  # bytes until the next step of parsing
        self.is_closed = False
        self.is_full = False

    async def open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        await self.loop.create_unix_connection(lambda: self, sock=connection)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)  # type: ignore[union-attr]

    def send(self, message: Any, payload: Payload = b"", *, is_urgent: bool = True) -> None:
        """Queues a message. After the end of the channel it does nothing: `on_lost` has told, or will.

        One that is not urgent is sent with the next that is, or after PATIENT_SECONDS: it wakes no process by itself.
        """
        if self.is_closed:
            return
        if is_urgent and not self.is_due:
            self.is_due = True
            self.loop.call_soon(self.flush)
        elif not is_urgent and self.timer is None and not self.is_due:
            self.timer = self.loop.call_later(PATIENT_SECONDS, self.flush)
        header = encode(message)
        self.parts.append(PREFIX.pack(len(header), len(payload)) + header)
        if payload:
            self.parts.append(payload)

    def flush(self) -> None:
        self.is_due = False
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        parts, self.parts = self.parts, []
        if self.transport is not None and parts and not self.transport.is_closing():  # to a closed one uvloop's write raises
            self.transport.write(b"".join(parts))

    def new_number(self) -> int:
        """A number for a call that has more than one answer: `on_message` gets them all."""
        return next(self.numbers)

    def begin_call(self, number: int = 0) -> int:
        """Returns the number of a new call, which `answer_to` then waits for; or of another step of call `number`.

        Raises ChannelClosed, Overloaded.
        """
        if self.is_closed:
            raise ChannelClosed
        if len(self.waiting) >= MAX_OUTSTANDING:
            raise Overloaded
        number = number or self.new_number()
        self.waiting[number] = self.loop.create_future()
        return number

    async def answer_to(self, number: int) -> Answer:
        """The answer to a call, and its payload. If the caller is cancelled, so is the call. Raises ChannelClosed."""
        try:
            return await self.waiting[number]
        except asyncio.CancelledError:
            self.send(CancelCall(number=number))
            raise
        finally:
            del self.waiting[number]

    def data_received(self, data: bytes) -> None:
        if self.received or len(data) < self.needed:
            self.received += data
            if len(self.received) < self.needed:
                return
            data, self.received = bytes(self.received), bytearray()
        try:
            rest = self.parse(data)
        except (FrameTooLarge, msgspec.MsgspecError) as error:
            log.error("channel_broken", reason=type(error).__name__)  # noqa: TRY400 - its text may quote a message
            self.close()
            return
        if rest < len(data):
            self.received += memoryview(data)[rest:]

    def parse(self, data: bytes) -> int:
        """Handles every whole frame. Returns where the first one begins that is not whole."""
        start, length, view = 0, len(data), memoryview(data)
        while length - start >= PREFIX.size:
            num_header, num_payload = sizes(data, start)
            middle = start + PREFIX.size + num_header
            end = middle + num_payload
            if end > length:
                self.needed = end - start
                return start
            self.handle(self.decode(view[start + PREFIX.size : middle]), data[middle:end])
            start = end
        self.needed = PREFIX.size
        return start

    def handle(self, message: Any, payload: bytes) -> None:
        waiting = self.waiting.get(getattr(message, "number", 0))
        if waiting is None or waiting.done():
            self.on_message(message, payload)
        else:
            waiting.set_result((message, payload))

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.is_closed = True
        for waiting in self.waiting.values():
            if not waiting.done():
                waiting.set_exception(ChannelClosed())
                waiting.exception()  # else asyncio logs it where the caller has left meanwhile
        self.on_lost()

    def close(self) -> None:
        """Closes this end, after what was queued is sent; `on_lost` follows. May be called twice."""
        self.is_closed = True
        self.flush()
        if self.transport is not None:
            self.transport.close()
