"""A streaming tokenizer that splits a JSON array into its elements, with bounded memory.

It scans for brackets, commas and strings only. Elements are parsed elsewhere, so that an invalid one does not affect the others.
"""

import re
from dataclasses import dataclass

from gateway.bulk.lines import CHUNK_BYTES, MAX_ROW_BYTES, ByteSource

STRUCTURE = re.compile(rb'[\[\]{},"]')
STRING_END = re.compile(rb'["\\]')
WHITE = b" \t\r\n"
OPEN = "it ends before its array does: was it cut off, or does a string or a bracket not end in the element at byte {}?"


class BrokenArray(Exception):
    """The array does not begin, or does not end. Its message does not have the file's name."""


@dataclass(slots=True)
class ArrayElements:
    """An iterator over elements as bytes, without their commas. An element that is too long is yielded as None.

    `offset` is the byte at which the next element begins, or that closes the array. Another iterator can resume there.
    """

    source: ByteSource
    offset: int
    is_begun: bool
    max_bytes: int = MAX_ROW_BYTES
    buffer: bytes = b""
    at: int = 0  # in the buffer: the bytes before it are scanned
    num_dropped: int = 0  # bytes of the element before the buffer
    number: int = 0

    def __post_init__(self) -> None:
        self.source.seek(self.offset)

    def __iter__(self) -> "ArrayElements":
        return self

    def __next__(self) -> bytes | None:
        """Returns the next element. Raises BrokenArray."""
        if not self.is_begun:
            self.begin()
        depth = 1
        while True:
            sign = self.sign()
            if sign in b"[{":
                depth += 1
            elif depth > 1:
                depth -= sign != b","
            elif sign == b",":
                return self.take(self.at - 1, self.at)
            elif sign == b"]":
                return self.last()

    def sign(self) -> bytes:
        """Returns the next bracket or comma outside strings, and moves `at` behind it."""
        in_string = False
        while True:
            found = (STRING_END if in_string else STRUCTURE).search(self.buffer, self.at)
            if found is None:
                self.at = max(self.at, len(self.buffer))
                if not self.fill():
                    raise BrokenArray(OPEN.format(f"{self.offset:,}"))
                continue
            self.at = found.end()
            if found[0] == b"\\":  # the escaped character may be a quote
                self.at += 1
            elif found[0] == b'"':
                in_string = not in_string
            else:
                return found[0]

    def begin(self) -> None:
        while not self.buffer.lstrip(WHITE):
            self.offset, self.buffer = self.offset + len(self.buffer), b""
            if not self.fill():
                raise BrokenArray("it is empty, where a JSON array was awaited")
        start = len(self.buffer) - len(self.buffer.lstrip(WHITE))
        if self.buffer[start : start + 1] != b"[":
            raise BrokenArray("it does not begin with '[', as a JSON array does: --format jsonl?")
        self.offset, self.buffer = self.offset + start + 1, self.buffer[start + 1 :]
        self.is_begun = True

    def fill(self) -> bool:
        """Reads the next chunk. Drops the beginning of an element that is too long. Returns False at the end of the text."""
        chunk = self.source.read(CHUNK_BYTES)
        if len(self.buffer) > self.max_bytes and self.at >= len(self.buffer):
            self.num_dropped += len(self.buffer)
            self.at -= len(self.buffer)
            self.buffer = b""
        self.buffer += chunk
        return bool(chunk)

    def take(self, end: int, following: int) -> bytes | None:
        """Returns the element that ends at `end` in the buffer, and moves on to `following`, where the next begins."""
        is_too_long = self.num_dropped + end > self.max_bytes
        element = None if is_too_long else self.buffer[:end].strip(WHITE)
        self.offset += self.num_dropped + following
        self.buffer, self.at, self.num_dropped = self.buffer[following:], 0, 0
        self.number += 1
        return element

    def last(self) -> bytes | None:
        """Returns the element before the closing bracket. Raises StopIteration if there is none, BrokenArray if text follows."""
        end = self.at - 1
        if self.num_dropped or self.buffer[:end].strip(WHITE):
            return self.take(end, end)
        after = self.buffer[self.at :]
        position = self.offset + self.at
        while not after.strip(WHITE):
            position += len(after)
            if not (after := self.source.read(CHUNK_BYTES)):
                raise StopIteration
        raise BrokenArray(f"it goes on after the end of its array, at byte {position:,}")
