"""The lines of a file, one after another, none longer than fits in memory."""

from typing import BinaryIO

MB = 1024 * 1024
MAX_ROW_BYTES = 16 * MB  # as large as a request's body may be
SKIPPED_AT_ONCE_BYTES = 1 * MB


class Lines:
    """An iterator over lines, without their ends unless `keeps_ends`. One that is too long is passed over: None stands in for it.

    `offset` is the byte at which the line after the last one begins.
    """

    def __init__(self, file: BinaryIO, *, offset: int, max_bytes: int = MAX_ROW_BYTES, keeps_ends: bool = False) -> None:
        self.file = file
        self.offset = offset
        self.max_bytes = max_bytes
        self.keeps_ends = keeps_ends
        file.seek(offset)

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> bytes | None:
        line = self.file.readline(self.max_bytes + 2)
        if not line:
            raise StopIteration
        self.offset += len(line)
        content = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(content) <= self.max_bytes:
            return line if self.keeps_ends else content
        while line and not line.endswith(b"\n"):
            line = self.file.readline(SKIPPED_AT_ONCE_BYTES)
            self.offset += len(line)
        return None
