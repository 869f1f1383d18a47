"""Frames with file descriptors beside them, on a stream socket between two processes of one machine."""

import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import msgspec

LENGTH = struct.Struct("<I")
RECEIVED_BYTES = 1 << 18
MAX_SOCKETS = 16  # beside the bytes of one read
MAX_MESSAGE_BYTES = 256 << 20  # /metrics of 1,000 keys is 0.5 MB


class PeerGone(Exception):
    """The other process has closed its end, or has died."""


class ControlSocket:
    """One end of a socket pair, non-blocking. The caller waits until it is readable or writable.

    A file descriptor that is sent reaches the other process with the first byte of its frame. One that is never read is closed by
    the kernel.
    """

    def __init__(self, end: socket.socket, decoder: "msgspec.msgpack.Decoder[Any]") -> None:
        end.setblocking(False)
        self.end = end
        self.decode = decoder.decode
        self.received = bytearray()
        self.arrived: deque[socket.socket] = deque()  # sockets of messages that are not taken yet
        self.unsent: deque[tuple[memoryview, socket.socket | None]] = deque()

    def fileno(self) -> int:
        return self.end.fileno()

    def receive(self) -> list[Any]:
        """The messages that have arrived. Raises PeerGone at the end of the stream, once all before it were returned."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self.end, RECEIVED_BYTES, MAX_SOCKETS)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            raise PeerGone from None
        for descriptor in descriptors:
            arrived = socket.socket(fileno=descriptor)
            arrived.set_inheritable(False)
            self.arrived.append(arrived)
        if not data:
            raise PeerGone
        self.received += data
        return [self.decode(frame) for frame in self.frames()]

    def frames(self) -> list[bytes]:
        """Takes the frames that are complete."""
        frames, start = [], 0
        while len(self.received) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self.received, start)
            if length > MAX_MESSAGE_BYTES:
                raise PeerGone  # no message is so long: the stream is not of this protocol
            stop = start + LENGTH.size + length
            if len(self.received) < stop:
                break
            frames.append(bytes(self.received[start + LENGTH.size : stop]))
            start = stop
        del self.received[:start]
        return frames

    def take_socket(self) -> socket.socket:
        """The socket that came with a message of the last `receive`, in the order of the messages."""
        return self.arrived.popleft()

    def queue(self, message: bytes, beside: socket.socket | None = None) -> None:
        """Queues a message, which `flush` sends. `beside` is closed once it is sent."""
        self.unsent.append((memoryview(LENGTH.pack(len(message)) + message), beside))

    def send(self, message: bytes, beside: socket.socket | None = None) -> None:
        """Queues a message, and sends what can be sent now. Raises PeerGone."""
        self.queue(message, beside)
        self.flush()

    def flush(self) -> None:
        """Sends what can be sent without waiting. Raises PeerGone."""
        while self.unsent:
            data, beside = self.unsent[0]
            try:
                sent = self.end.send(data) if beside is None else socket.send_fds(self.end, [data], [beside.fileno()])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                raise PeerGone from None
            if beside is not None:
                beside.close()
            if sent == len(data):
                self.unsent.popleft()
            else:
                self.unsent[0] = data[sent:], None

    @property
    def has_unsent(self) -> bool:
        return bool(self.unsent)

    def close(self) -> None:
        for unused in (*self.arrived, *(beside for _, beside in self.unsent if beside is not None)):
            unused.close()
        self.arrived.clear()
        self.unsent.clear()
        self.end.close()
