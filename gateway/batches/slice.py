"""A slice of a batch: consecutive lines that are answered together. It is the unit of work, and of what a killed gateway may lose.

Its bounds depend on the input alone, as those of a shard of `gateway embed`. So its texts are embedded in the same company,
whichever gateway does it and however often it is begun anew. On an otherwise idle machine the vectors are the same to the last bit.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from gateway.bulk.row import Position
from gateway.bulk.shard import MAX_BYTES, MAX_ROWS
from gateway.wire import batch_lines
from gateway.wire.batch_lines import BatchRequest

LINE_BYTES = 110  # of a request besides its texts, about: then a slice has as many texts as a shard


@dataclass(slots=True)
class Slice:
    """`contents` are lines as they stand, blank ones among them. `start` is where the first one begins, `next` the next slice."""

    start: Position
    next: Position
    contents: list[bytes] = field(default_factory=list)
    num_bytes: int = 0

    def add(self, content: bytes) -> None:
        self.contents.append(content)
        self.num_bytes += max(0, len(content) - LINE_BYTES)
        self.next = Position(self.next.row, self.next.offset + len(content), self.next.line + 1)

    def has_room(self, content: bytes) -> bool:
        return not self.contents or (len(self.contents) < MAX_ROWS and self.num_bytes + len(content) - LINE_BYTES <= MAX_BYTES)

    def requests(self, endpoint: str) -> list[BatchRequest]:
        """Returns the requests of a file that was validated."""
        lines = enumerate(self.contents, self.start.line + 1)
        return [batch_lines.parse(content, line, endpoint) for line, content in lines if not batch_lines.is_blank(content)]


async def slices(lines: AsyncIterator[bytes], start: Position) -> AsyncGenerator[Slice]:
    """Groups the lines from `start` on. A line of more than MAX_BYTES has a slice of its own."""
    piece = Slice(start, start)
    async for content in lines:
        if not piece.has_room(content):
            yield piece
            piece = Slice(piece.next, piece.next)
        piece.add(content)
    if piece.contents:
        yield piece
