"""An iterator over the lines of a text, with bounded memory."""

from collections import deque
from typing import Protocol

MB = 1024 * 1024
MAX_ROW_BYTES = 16 * MB  # as large as a request's body may be
CHUNK_BYTES = MB // 4


class ByteSource(Protocol):
    """UTF-8 bytes that can be read from any offset."""

    def seek(self, offset: int, /) -> object: ...

    def read(self, num_bytes: int, /) -> bytes: ...


class Lines:
    """An iterator over lines with their ends (LF, CRLF or a single CR, as Python reads text). It yields None for a line too long.

    `offset` is the byte at which the next line begins, `number` its number, from 0. After a line that was too long, `num_counted`
    is how often the byte `counted` was in it.
    """

    def __init__(
        self, source: ByteSource, *, offset: int, number: int = 0, max_bytes: int = MAX_ROW_BYTES, counted: bytes = b""
    ) -> None:
        self.source = source
        self.offset = offset
        self.number = number
        self.max_bytes = max_bytes
        self.counted = counted
        self.num_counted = 0
        self.whole: deque[bytes] = deque()
        self.tail = b""
        self.num_dropped = 0  # bytes before `tail` of a line that is too long
        self.is_at_end = False
        source.seek(offset)

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> bytes | None:
        self.num_counted = 0
        while not self.whole:
            if self.is_at_end:
                raise StopIteration
            self.fill()
        line = self.whole.popleft()
        num_bytes, self.num_dropped = self.num_dropped + len(line), 0
        self.offset += num_bytes
        self.number += 1
        if num_bytes - len(line) + len(without_end(line)) <= self.max_bytes:
            return line
        self.num_counted += line.count(self.counted) if self.counted else 0
        return None

    def fill(self) -> None:
        """Reads the next chunk. A CR at its end stays in the tail: only the next byte shows whether it is a CRLF."""
        chunk = self.source.read(CHUNK_BYTES)
        self.is_at_end = not chunk
        pieces = (self.tail + chunk).splitlines(keepends=True)
        self.tail = b"" if self.is_at_end or not pieces or pieces[-1].endswith(b"\n") else pieces.pop()
        self.whole.extend(pieces)
        if not pieces and len(self.tail) > self.max_bytes + 2:
            self.drop()

    def drop(self) -> None:
        """Drops the tail except its last byte, which may be a CR."""
        self.num_counted += self.tail[:-1].count(self.counted) if self.counted else 0
        self.num_dropped, self.tail = self.num_dropped + len(self.tail) - 1, self.tail[-1:]


def without_end(line: bytes) -> bytes:
    return line[:-2] if line.endswith(b"\r\n") else line.removesuffix(b"\n").removesuffix(b"\r")
