"""Write coalescing: a transport that sends all writes of one iteration of the event loop together."""

import asyncio
from collections.abc import Callable
from typing import Any

JOINED_BYTES = 64 * 1024  # more is not copied to save one write


class CoalescingTransport(asyncio.Transport):
    """Sends the head and body of a reply together: uvicorn writes them apart, and each write wakes the client for 20 microseconds.

    `on_close` is called once, instead of the transport's own `close`, after all writes have reached the transport.
    """

    def __init__(self, transport: asyncio.Transport, *, on_close: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.transport = transport
        self.on_close = on_close or transport.close
        self.is_closed = False
        self.loop = asyncio.get_running_loop()
        self.pending: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.pending:
            self.loop.call_soon(self.flush)
        self.pending.append(data)

    def flush(self) -> None:
        pending, self.pending = self.pending, []
        if self.is_closing():  # the client is gone: asyncio ignores writes then, uvloop raises
            return
        if sum(map(len, pending)) <= JOINED_BYTES:
            pending = [b"".join(pending)]
        # Not `writelines`: in asyncio of Python 3.12 and 3.13 it doesn't call pause_writing for a client that does not read, and
        # with an empty write or a lost connection it tries for ever.
        for data in pending:
            if data:
                self.transport.write(data)

    def close(self) -> None:
        if self.is_closed:
            return
        self.flush()
        self.is_closed = True
        self.on_close()

    def abort(self) -> None:
        self.transport.abort()

    def get_write_buffer_size(self) -> int:
        return self.transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self.is_closed or self.transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self.transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.set_protocol(protocol)
