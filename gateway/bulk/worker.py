"""Computes a shard's vectors. Transient errors are retried. Bisection finds the rows that fail, so that only they are rejected.

A request that fails is halved until a single row fails, whatever the error's text. If the error names no input, a text that is
known to be good is embedded first. If that fails too, the model is the cause, and no row is rejected.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Generic

from gateway.bulk.fault import ERRORS, index_of, message_of, names_input, reason_of
from gateway.bulk.outcome import RowOutcomes, ShardResult, Treatment
from gateway.bulk.retry import Patience
from gateway.bulk.row import Row
from gateway.bulk.shard import Shard
from gateway.config import LongInput, OutputDtype
from gateway.embedding.embedder import Embedder, Inputs, Prepared, Vectors, WorkT
from gateway.embedding.quantization import Ranges, quantize
from gateway.embedding.vectors import truncate
from gateway.errors import OperatorError, RequestTooLong

CALLER = "bulk"
ATTEMPT_SECONDS = 3600.0  # deadline of one request
CONTROL = "A text that any model can embed."
MAX_NAMED = 8  # rows of a shard that are isolated because an error named them
MAX_TRUSTED_FAILURES = 16  # consecutive failures of single rows, until the model itself is checked again


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """The options that all texts are embedded with."""

    dimensions: int
    input_type: str | None = None
    long_input: LongInput | None = None
    layer_norm: bool = False  # before vectors are cut
    dtype: OutputDtype = "float"
    ranges: Ranges | None = None  # of int8 and uint8


class BulkWorker(Generic[WorkT]):
    """Embeds at most `in_flight` shards at once; more may be prepared meanwhile."""

    def __init__(self, embedder: Embedder[WorkT], ask: EmbedOptions, *, in_flight: int, patience: Patience) -> None:
        self.embedder = embedder
        self.ask = ask
        self.patience = patience
        self.slots = asyncio.Semaphore(in_flight)

    async def run(self, shard: Shard) -> ShardResult:
        """Returns a shard's result. Raises OperatorError if a retry is of no use."""
        tally = RowOutcomes(reasons={row.number: row.reason or "" for row in shard.rejected})
        requests = await self.prepare_requests(shard.rows, tally)
        async with self.slots:
            for rows, prepared in requests:
                await self.embed(rows, prepared, tally)
        result = tally.result(shard, self.ask.dimensions)
        if self.ask.dtype == "float":
            return result
        small = await asyncio.to_thread(quantize, result.vectors, self.ask.dtype, self.ask.ranges)  # up to 8 million numbers
        return replace(result, vectors=small)

    async def prepare_requests(self, rows: list[Row], tally: RowOutcomes) -> list[tuple[list[Row], Prepared[WorkT]]]:
        """Returns the requests for the rows: one, or more if one is too long.

        Rows that cannot be prepared are left out first, so that they do not split up the rows that are embedded together.
        """
        if not rows:
            return []
        try:
            return [(rows, await self.prepare(rows, tally))]
        except RequestTooLong:
            if len(rows) > 1:
                first, second = halves(rows)
                return [*await self.prepare_requests(first, tally), *await self.prepare_requests(second, tally)]
            tally.reasons[rows[0].number] = "it is too long for a request"
            return []
        except ERRORS as error:
            await self.refuse_models_trouble(error, rows, tally)
            return await self.prepare_requests(await self.without_faults(rows, tally), tally)

    async def without_faults(self, rows: list[Row], tally: RowOutcomes) -> list[Row]:
        """Returns the rows that can be prepared."""
        try:
            await self.prepare(rows, tally)
        except RequestTooLong:
            return rows
        except ERRORS as error:
            await self.refuse_models_trouble(error, rows, tally)
            if len(rows) > 1:
                first, second = halves(rows)
                return [*await self.without_faults(first, tally), *await self.without_faults(second, tally)]
            tally.reasons[rows[0].number] = reason_of(error)
            return []
        tally.num_trusted = 0
        return rows

    async def embed(self, rows: list[Row], prepared: Prepared[WorkT], tally: RowOutcomes) -> None:
        """Embeds a request. If it fails it is halved until a single row fails: 2 log2(n) + 1 more requests for one bad row of n."""
        at_once = tally.num_trusted is not None
        try:
            vectors = await self.patience.retry(lambda: self.embedder.embed(prepared), at_once=at_once)
        except ERRORS as error:
            await self.refuse_models_trouble(error, rows, tally)
            if len(rows) == 1:
                tally.reasons[rows[0].number] = reason_of(error)
                return
            for part in parts(rows, error, tally):
                for some, again in await self.prepare_requests(part, tally):
                    await self.embed(some, again, tally)
            return
        if tally.num_trusted is not None:
            tally.num_trusted = 0
        self.add(rows, prepared, vectors, tally)

    async def refuse_models_trouble(self, error: Exception, rows: list[Row], tally: RowOutcomes) -> None:
        """Raises OperatorError if the model fails on a good text too, so that no row of the shard is the cause."""
        if names_input(error):
            return
        if tally.num_trusted is not None and tally.num_trusted < MAX_TRUSTED_FAILURES:
            tally.num_trusted += len(rows) == 1
            return
        try:
            prepared = await self.patience.retry(lambda: self.embedder.prepare(self.inputs([CONTROL])))
            await self.patience.retry(lambda: self.embedder.embed(prepared))
        except ERRORS:
            raise OperatorError(f"the model cannot go on: {message_of(error)}") from None
        tally.num_trusted = 0

    def add(self, rows: list[Row], prepared: Prepared[WorkT], vectors: Vectors, tally: RowOutcomes) -> None:
        cut_rows = truncate(vectors.rows, self.ask.dimensions, normalize=True, layer_norm=self.ask.layer_norm)
        if cut_rows.shape != (len(rows), self.ask.dimensions):
            raise OperatorError(
                f"the model gave vectors of shape {cut_rows.shape} where {(len(rows), self.ask.dimensions)} was due"
            )
        tally.add(rows, cut_rows, vectors.token_counts or prepared.token_counts)
        treatment: Treatment = "cut" if prepared.rule == "end" else "chunked"
        tally.treatments |= {row.number: treatment for row, is_long in zip(rows, prepared.is_long, strict=True) if is_long}

    async def prepare(self, rows: list[Row], tally: RowOutcomes) -> Prepared[WorkT]:
        at_once = tally.num_trusted is not None
        return await self.patience.retry(lambda: self.embedder.prepare(self.inputs([row.text for row in rows])), at_once=at_once)

    def inputs(self, texts: list[str]) -> Inputs:
        return Inputs(
            texts=texts,
            is_array=True,
            caller=CALLER,
            deadline=time.monotonic() + ATTEMPT_SECONDS,
            long_input=self.ask.long_input,
            input_type=self.ask.input_type,
        )


def parts(rows: list[Row], error: Exception, tally: RowOutcomes) -> list[list[Row]]:
    """Splits a failed request: into the row that the error names, and the rows before and after it; else into halves.

    Beyond MAX_NAMED named rows halves cost less, because all rows after a named one are embedded again.
    """
    index = index_of(error, len(rows)) if tally.num_named < MAX_NAMED else None
    if index is None:
        return list(halves(rows))
    tally.num_named += 1
    return [rows[:index], rows[index : index + 1], rows[index + 1 :]]


def halves(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    middle = len(rows) // 2
    return rows[:middle], rows[middle:]
