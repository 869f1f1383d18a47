"""The result of rows: their vectors, the reasons of rejected rows, and the rows that were longer than the model reads."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from msgspec import Struct

from gateway.bulk.row import Id, Position, Row
from gateway.bulk.shard import Shard
from gateway.embedding.vectors import ALL_ZERO, is_vector

Treatment = Literal["chunked", "cut"]


class RejectedRow(Struct, frozen=True, omit_defaults=True):
    """A line of the file of rejected rows. `line` counts from 1, if the format has lines. `file` is set for a folder."""

    row: int
    id: Id | None
    reason: str
    line: int | None = None
    file: str | None = None


class LongRow(Struct, frozen=True, omit_defaults=True):
    """A line of the report: a text longer than the model reads, and whether it was chunked or cut."""

    row: int
    id: Id | None
    tokens: int
    treatment: Treatment
    line: int | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """A shard's part of the output. `vectors` has a row for each id, of the job's type. All lists are in the input's order."""

    next: Position
    vectors: np.ndarray
    ids: list[Id]
    rejected: list[RejectedRow]
    long: list[LongRow] = field(default_factory=list)
    num_tokens: int


@dataclass(slots=True)
class RowOutcomes:
    """The outcomes of one shard's rows, by row number. In the end each row has a vector or a reason."""

    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    token_counts: dict[int, int] = field(default_factory=dict)
    treatments: dict[int, Treatment] = field(default_factory=dict)
    num_named: int = 0  # rows that were isolated because an error named them
    num_trusted: int | None = None  # failures since the model last worked; None until it has worked once

    def add(self, rows: list[Row], vectors: np.ndarray, token_counts: list[int]) -> None:
        """Adds a successful request: `vectors` has shape (len(rows), dimensions), float32."""
        for row, vector, is_good, num_tokens in zip(rows, vectors, is_vector(vectors), token_counts, strict=True):
            self.token_counts[row.number] = num_tokens
            if is_good:
                self.vectors[row.number] = vector
            else:
                self.reasons[row.number] = "its vector has values that are not numbers" if vector.any() else ALL_ZERO

    def result(self, shard: Shard, dimensions: int) -> ShardResult:
        kept = [row for row in shard.rows if row.number in self.vectors]
        every = sorted([*shard.rows, *shard.rejected], key=lambda row: row.number)
        return ShardResult(
            next=shard.next,
            vectors=np.stack([self.vectors[row.number] for row in kept]) if kept else np.empty((0, dimensions), dtype=np.float32),
            ids=[row.number if row.id is None else row.id for row in kept],
            rejected=[
                RejectedRow(row.number, row.id, self.reasons[row.number], row.line, row.file)
                for row in every
                if row.number in self.reasons
            ],
            long=[
                LongRow(row.number, row.id, self.token_counts[row.number], self.treatments[row.number], row.line, row.file)
                for row in kept
                if row.number in self.treatments
            ],
            num_tokens=sum(self.token_counts.values()),
        )
