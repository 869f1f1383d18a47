"""A shard: consecutive rows that are embedded together, with no others. It is the unit of work, and of what a killed run may lose.

A batch's composition changes the last bits of its vectors: by 2e-7 in float32, by 7e-4 in bfloat16. A shard's bounds depend only on
the input, and its rows are one request. So its vectors are bit-identical in any run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.bulk.row import Position, Row

MAX_ROWS = 2048  # as many as a request may have
MAX_BYTES = 400_000  # of text: nearly every token has at least one byte, and a request has by default at most 600,000 tokens


@dataclass(slots=True)
class Shard:
    """`rows` each have a text, `rejected` have none. `next` is where the next shard begins."""

    rows: list[Row] = field(default_factory=list)
    rejected: list[Row] = field(default_factory=list)
    num_bytes: int = 0
    next: Position = field(default_factory=Position)

    def add(self, row: Row, num_bytes: int) -> None:
        (self.rows if row.reason is None else self.rejected).append(row)
        self.num_bytes += num_bytes
        self.next = row.next

    def __len__(self) -> int:
        return len(self.rows) + len(self.rejected)


def shards(rows: Iterator[Row]) -> Iterator[Shard]:
    """Groups all rows, in order. A row of more than MAX_BYTES has a shard of its own."""
    shard = Shard()
    for row in rows:
        num_bytes = len(row.text.encode())
        if len(shard) and (len(shard) == MAX_ROWS or shard.num_bytes + num_bytes > MAX_BYTES):
            yield shard
            shard = Shard()
        shard.add(row, num_bytes)
    if len(shard):
        yield shard
