"""Write-behind usage accounting: counts in memory, flushes to the store every `usage.flush_seconds`, and enforces budgets.

The request path only adds to dictionaries. A killed process loses what it counted since its last flush. While the store is
unavailable, up to MAX_PENDING_ROWS rows of counts are kept and written later. A batch that was sent and not acknowledged may have
been written: it is sent again unchanged, under the same number, so the store counts it once.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gateway.access.keys.key import Caller
from gateway.access.keys.policy import iso
from gateway.access.usage.period import HOUR_SECONDS, hour_of, period_of, renewed_at
from gateway.access.usage.store import BUDGET_SPANS, Spent, Stamp, UsageStore, UsageTotals
from gateway.access.worker import WorkerThread
from gateway.background import BackgroundTask
from gateway.config import UsageSettings
from gateway.errors import InsufficientQuota, KeyStoreUnavailable, OperatorError
from gateway.log import get_logger
from gateway.metrics import Metrics

MAX_PENDING_ROWS = 50_000  # some 20 MB: each is a key, a model and an hour
ACTIVE_SECONDS = 600.0  # after a key's last request, how long to fetch what other gateways spent of its budget
PRUNE_SECONDS = 3600.0
CLOSE_SECONDS = 8.0  # when the process stops: for a write whose connection is found dead, and the next one of LAST_SILENCE_SECONDS
LAST_TRIES = 2  # of the last flush: the first finds a dead connection, the second has a new one
UNAVAILABLE_CLOSE_SECONDS = 1.0  # the same, if the store was unavailable at the last flush
DAY_SECONDS = 86_400

log = get_logger()

UsageSlot = tuple[str, str, int]  # key, model and hour, in whole hours since 1970


@dataclass(slots=True)
class Counts:
    num_requests: int = 0
    num_inputs: int = 0
    num_tokens: int = 0
    num_cached_tokens: int = 0

    def add(self, other: "Counts") -> None:
        self.num_requests += other.num_requests
        self.num_inputs += other.num_inputs
        self.num_tokens += other.num_tokens
        self.num_cached_tokens += other.num_cached_tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """Counts that were sent to the store, and are not known to be written."""

    number: int
    counts: dict[UsageSlot, Counts]
    is_unsure: bool = False  # whether it may have been written


class UsageRecorder:
    """Used on the event loop only; a thread writes to the usage store."""

    def __init__(
        self,
        usage_store: UsageStore,
        settings: UsageSettings,
        *,
        metrics: Metrics,
        wall_clock: Callable[[], float] = time.time,
        max_pending_rows: int = MAX_PENDING_ROWS,
    ) -> None:
        self.usage_store = usage_store
        self.settings = settings
        self.metrics = metrics
        self.wall_clock = wall_clock
        self.max_pending_rows = max_pending_rows
        self.writer = secrets.token_hex(16)
        self.number = 0  # of the last batch
        self.pending: dict[UsageSlot, Counts] = {}
        self.sent: Batch | None = None
        self.is_informed = False  # whether earlier spending was read
        self.is_unavailable = False
        self.spent: Spent = {}  # of keys with a budget: the store's last sums, plus what was counted since
        self.known_periods: list[str] = []
        self.active: dict[str, float] = {}  # keys with a budget, and the time of their last request
        self.pruned_at = 0.0
        self.num_lost = 0  # rows, since the last log line about them
        self.is_stopping = asyncio.Event()
        self.background = BackgroundTask("usage", self.flush_forever)
        self.worker = WorkerThread("usage")

    async def start(self, *, is_store_unavailable: bool = False) -> None:
        """Reads what was spent before, then flushes every few seconds. Raises OperatorError if the store cannot be read.

        With `is_store_unavailable` it reads that once the store is available; until then budgets have only what is counted here.
        """
        if not is_store_unavailable:
            await self.inform()
        self.background.start()

    async def inform(self) -> None:
        found = await self.worker.run(self.usage_store.budgets, self.periods())
        for slot in list(found):
            found[slot] += self.spent.get(slot, 0)  # not written yet
        self.spent |= found
        self.is_informed = True

    @property
    def is_running(self) -> bool:
        """False if usage is no longer written, which `/livez` shows."""
        return self.background.is_running

    def record(  # noqa: PLR0913 - each is counted
        self, caller: Caller, *, model: str, num_inputs: int, num_tokens: int, num_cached_tokens: int, num_requests: int = 1
    ) -> None:
        """Counts requests that were answered."""
        now = self.wall_clock()
        hour = int(now // HOUR_SECONDS)
        self.add_pending((caller.public_id, model, hour), Counts(num_requests, num_inputs, num_tokens, num_cached_tokens))
        self.metrics.access.of_key(caller.public_id).tokens.inc(num_tokens)
        if caller.allowance.token_budget is not None:
            self.active[caller.public_id] = now
            for span in BUDGET_SPANS:
                slot = caller.public_id, period_of(span, hour_of(now))
                self.spent[slot] = self.spent.get(slot, 0) + num_tokens

    def refuse_spent(self, caller: Caller) -> None:
        """Raises InsufficientQuota if the key's budget is spent. A request that began before that is finished."""
        budget, span = caller.allowance.token_budget, caller.allowance.budget_period
        if budget is None:
            return
        now = self.wall_clock()
        self.active[caller.public_id] = now
        if self.spent.get((caller.public_id, period_of(span, hour_of(now))), 0) >= budget:
            raise InsufficientQuota(budget=budget, period=span, renewed_at=iso(renewed_at(span, now)) or "")

    def add_pending(self, slot: UsageSlot, counts: Counts) -> None:
        found = self.pending.get(slot)
        if found is not None:
            found.add(counts)
        elif self.num_unwritten < self.max_pending_rows:
            self.pending[slot] = counts
        else:
            self.num_lost += 1
            self.metrics.access.usage_rows_lost.inc()

    @property
    def num_unwritten(self) -> int:
        return len(self.pending) + (len(self.sent.counts) if self.sent else 0)

    async def flush_forever(self) -> None:
        tries_left = LAST_TRIES
        while tries_left:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.is_stopping.wait(), self.settings.flush_seconds)
            is_last = self.is_stopping.is_set()  # read before the last flush, which then includes every count
            try:
                if not self.is_informed:
                    await self.inform()
                await self.flush()
                await self.prune()
            except OperatorError as error:
                if not self.is_unavailable:
                    log.warning("usage_not_written", reason=str(error), hint="it is kept, and written when the store is back")
                self.is_unavailable = True
                tries_left -= 1 if is_last else 0
            else:
                if self.is_unavailable:
                    log.info("usage_written_again")
                self.is_unavailable = False
                tries_left = 0 if is_last else LAST_TRIES
            if self.num_lost:
                log.error("usage_lost", reason="too much is waiting to be written", rows=self.num_lost)
                self.num_lost = 0

    async def flush(self) -> None:
        """Writes the counts and reads what was spent. Raises OperatorError; the counts are then kept."""
        now = self.wall_clock()
        self.active = {key: at for key, at in self.active.items() if now - at < ACTIVE_SECONDS}
        try:
            if self.sent is not None:
                await self.send()
            if self.pending or self.active:
                self.number += 1
                self.sent, self.pending = Batch(self.number, self.pending), {}
                await self.send()
        finally:
            self.metrics.access.usage_pending_rows.set(self.num_unwritten)

    async def send(self) -> None:
        batch, periods, keys = self.sent, self.periods(), list(self.active)
        if batch is None:
            return
        stamp = Stamp(self.writer, batch.number, hour_of(self.wall_clock()))
        rows, is_last = rows_of(batch.counts), self.is_stopping.is_set()
        try:
            found = await self.worker.run(
                lambda: self.usage_store.add(rows, stamp=stamp, keys=keys, periods=periods, is_last=is_last)
            )
        except OperatorError as error:
            if not (isinstance(error, KeyStoreUnavailable) and error.is_unsure) and not batch.is_unsure:
                self.take_back(batch)
            else:
                self.sent = Batch(batch.number, batch.counts, is_unsure=True)
            raise
        self.sent = None
        self.update_spent(found, keys, periods)

    def take_back(self, batch: Batch) -> None:
        """Puts back a batch that was certainly not written."""
        newer, self.pending, self.sent = self.pending, batch.counts, None
        for slot, counts in newer.items():
            self.add_pending(slot, counts)

    def update_spent(self, found: Spent, keys: list[str], periods: list[str]) -> None:
        """Takes the store's sums, plus what was counted while they were fetched."""
        fresh = {(key, period): found.get((key, period), 0) for key in keys for period in periods}
        for (key, _, hour), counts in self.pending.items():
            for span in BUDGET_SPANS:
                slot = key, period_of(span, hour_of(hour * HOUR_SECONDS))
                if slot in fresh:
                    fresh[slot] += counts.num_tokens
        if periods != self.known_periods:  # a day is over: its spending no longer matters
            self.spent = {slot: tokens for slot, tokens in self.spent.items() if slot[1] in periods}
            self.known_periods = periods
        self.spent.update(fresh)

    async def prune(self) -> None:
        now = self.wall_clock()
        if now - self.pruned_at >= PRUNE_SECONDS:
            self.pruned_at = now  # also if it fails: the next try is in an hour, not in a few seconds
            await self.worker.run(self.usage_store.prune, hour_of(now - self.settings.retention_days * DAY_SECONDS))

    def periods(self) -> list[str]:
        hour = hour_of(self.wall_clock())
        return [period_of(span, hour) for span in BUDGET_SPANS]

    async def close(self) -> None:
        """Flushes the remaining counts. If that fails twice or takes too long, they are lost, and the loss is logged."""
        self.is_stopping.set()
        seconds = UNAVAILABLE_CLOSE_SECONDS if self.is_unavailable else CLOSE_SECONDS
        await self.background.close(grace_seconds=seconds)  # it flushes once more
        lost = [*self.pending.values(), *(self.sent.counts.values() if self.sent else ())]
        if lost:
            tokens = sum(counts.num_tokens for counts in lost)
            self.metrics.access.usage_rows_lost.inc(len(lost))
            log.error("usage_lost", reason="the store cannot be written", rows=len(lost), tokens=tokens)
        self.worker.close()


def rows_of(batch: dict[UsageSlot, Counts]) -> list[UsageTotals]:
    return [
        UsageTotals(
            key, model, hour_of(hour * HOUR_SECONDS), each.num_requests, each.num_inputs, each.num_tokens, each.num_cached_tokens
        )
        for (key, model, hour), each in batch.items()
    ]
