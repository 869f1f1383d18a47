"""A shard's vectors. What may pass is tried again; a row that has no vector is found, and costs no other row its own."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from gateway.backoff import Backoff
from gateway.bulk.fault import FAULTS, is_fault, may_pass, reason_of
from gateway.bulk.journal import RejectedRow
from gateway.bulk.row import Id, Row
from gateway.bulk.shard import Shard
from gateway.config import LongInput
from gateway.embedding.embedder import Embedder, Inputs, Prepared, Vectors, WorkT
from gateway.embedding.vectors import ALL_ZERO, is_vector, truncate
from gateway.errors import GatewayError, OperatorError, RequestTooLong

CALLER = "bulk"
ATTEMPT_SECONDS = 3600.0  # one request of one shard may take
RETRIES = Backoff(first_seconds=1.0, max_seconds=30.0)

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class ShardResult:
    """`vectors` has shape (len(ids), dimensions), float32; ids and refused rows are in the input's order."""

    shard: Shard
    vectors: np.ndarray
    ids: list[Id]
    refused: list[RejectedRow]
    num_tokens: int


@dataclass(slots=True)
class RowOutcomes:
    """What became of a shard's rows, by their numbers."""

    vectors: dict[int, np.ndarray] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """What all texts are embedded by."""

    dimensions: int
    input_type: str | None = None
    long_input: LongInput | None = None
    layer_norm: bool = False  # before vectors are cut


class BulkWorker(Generic[WorkT]):
    """At most `in_flight` shards are in the embedder's hands; others may be prepared meanwhile."""

    def __init__(
        self,
        embedder: Embedder[WorkT],
        ask: EmbedOptions,
        *,
        in_flight: int,
        patience_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.embedder = embedder
        self.ask = ask
        self.patience_seconds = patience_seconds
        self.sleep = sleep
        self.slots = asyncio.Semaphore(in_flight)

    async def run(self, shard: Shard) -> ShardResult:
        """Raises OperatorError where trying again is of no use."""
        tally = RowOutcomes(reasons={row.number: row.reason or "" for row in shard.rejected})
        requests = await self.prepare_requests(shard.rows, tally)
        async with self.slots:
            for rows, prepared in requests:
                await self.embed(rows, prepared, tally)
        kept = [row for row in shard.rows if row.number in tally.vectors]
        every = sorted([*shard.rows, *shard.rejected], key=lambda row: row.number)
        return ShardResult(
            shard,
            np.stack([tally.vectors[row.number] for row in kept]) if kept else np.empty((0, self.ask.dimensions), dtype=np.float32),
            [row.number if row.id is None else row.id for row in kept],
            [RejectedRow(row.number, row.id, tally.reasons[row.number]) for row in every if row.number in tally.reasons],
            tally.num_tokens,
        )

    async def prepare_requests(self, rows: list[Row], tally: RowOutcomes) -> list[tuple[list[Row], Prepared[WorkT]]]:
        """The requests that the rows are embedded by: one, unless that were too long.

        Rows that cannot be prepared are left out first, so that they do not scatter what is embedded together.
        """
        if not rows:
            return []
        try:
            return [(rows, await self.prepare(rows))]
        except RequestTooLong:
            if len(rows) > 1:
                first, second = halves(rows)
                return [*await self.prepare_requests(first, tally), *await self.prepare_requests(second, tally)]
            tally.reasons[rows[0].number] = "it is too long for a request"
            return []
        except FAULTS:
            return await self.prepare_requests(await self.without_faults(rows, tally), tally)

    async def without_faults(self, rows: list[Row], tally: RowOutcomes) -> list[Row]:
        """The rows that can be prepared."""
        try:
            await self.prepare(rows)
        except RequestTooLong:
            return rows
        except FAULTS as error:
            if len(rows) > 1:
                first, second = halves(rows)
                return [*await self.without_faults(first, tally), *await self.without_faults(second, tally)]
            tally.reasons[rows[0].number] = reason_of(error)
            return []
        return rows

    async def embed(self, rows: list[Row], prepared: Prepared[WorkT], tally: RowOutcomes) -> None:
        """A request that fails is halved until what fails is a row alone."""
        try:
            vectors = await self.retry(lambda: self.embedder.embed(prepared))
        except FAULTS as error:
            if len(rows) == 1:
                tally.reasons[rows[0].number] = reason_of(error)
                return
            for half in halves(rows):
                for some, again in await self.prepare_requests(half, tally):
                    await self.embed(some, again, tally)
            return
        self.count(rows, prepared, vectors, tally)

    def count(self, rows: list[Row], prepared: Prepared[WorkT], vectors: Vectors, tally: RowOutcomes) -> None:
        cut_rows = truncate(vectors.rows, self.ask.dimensions, normalize=True, layer_norm=self.ask.layer_norm)
        if cut_rows.shape != (len(rows), self.ask.dimensions):
            raise OperatorError(
                f"the model gave vectors of shape {cut_rows.shape} where {(len(rows), self.ask.dimensions)} was due"
            )
        for row, vector, is_good in zip(rows, cut_rows, is_vector(cut_rows), strict=True):
            if is_good:
                tally.vectors[row.number] = vector
            else:
                tally.reasons[row.number] = "its vector has values that are not numbers" if vector.any() else ALL_ZERO
        tally.num_tokens += sum(vectors.token_counts or prepared.token_counts)

    async def prepare(self, rows: list[Row]) -> Prepared[WorkT]:
        return await self.retry(lambda: self.embedder.prepare(self.inputs(rows)))

    def inputs(self, rows: list[Row]) -> Inputs:
        return Inputs(
            texts=[row.text for row in rows],
            is_array=True,
            caller=CALLER,
            deadline=time.monotonic() + ATTEMPT_SECONDS,
            long_input=self.ask.long_input,
            input_type=self.ask.input_type,
        )

    async def retry(self, attempt: Callable[[], Awaitable[Answer]]) -> Answer:
        """Again and again, with longer and longer pauses, while it may help and patience lasts.

        Raises FAULTS where an input is to blame, OperatorError where nothing helps.
        """
        waited, num_failures = 0.0, 0
        while True:
            try:
                return await attempt()
            except GatewayError as error:
                if is_fault(error):
                    raise
                if not may_pass(error):
                    raise OperatorError(f"the model cannot go on: {error.message}") from None
                num_failures += 1
                wait = RETRIES.pause_seconds(num_failures, at_least_seconds=error.retry_after_seconds or 0)
                if waited + wait > self.patience_seconds:
                    raise OperatorError(f"the model still fails after {waited:.0f} seconds of waiting: {error.message}") from None
            await self.sleep(wait)
            waited += wait


def halves(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    middle = len(rows) // 2
    return rows[:middle], rows[middle:]
