"""Chooses batches and works on them: unfinished ones that no gateway works on, of different keys first.

A batch that was begun is only taken by a gateway whose models give the same vectors. If there is none for `orphan_seconds`, it
fails.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from heapq import heapify, heappop, heappush

from gateway.background import BackgroundTask
from gateway.batches.job import BatchJob, LineError
from gateway.batches.run import BatchParts, BatchRun
from gateway.errors import StorageUnavailable
from gateway.log import get_logger

PRUNE_SECONDS = 3600.0
SHOW_SECONDS = 5.0
DAY_SECONDS = 86_400
MAX_DEATHS = 5  # of the work on one batch in this process, by errors that nobody foresaw: then the batch fails

log = get_logger()


class BatchRunner:
    """`is_open` tells whether batches are served now. `on_ended` is called with each batch that ended here."""

    def __init__(self, parts: BatchParts, *, is_open: Callable[[], bool], on_ended: Callable[[BatchJob], None]) -> None:
        self.parts = parts
        self.store = parts.records.store
        self.is_open = is_open
        self.on_ended = on_ended
        self.name = f"{socket.gethostname()[:32]}-{secrets.token_hex(8)}"
        self.runs: dict[str, BatchRun] = {}
        self.tasks: dict[str, BackgroundTask] = {}
        self.deaths: dict[str, int] = {}
        self.is_stopping = False
        self.woken = asyncio.Event()
        self.pruned_at = self.shown_at = 0.0
        self.is_unavailable = False
        self.background = BackgroundTask("batches", self.run_forever)

    def start(self) -> None:
        self.background.start()

    def wake(self) -> None:
        """Looks for batches at once: one was just made or cancelled."""
        self.woken.set()

    def stop(self) -> None:
        """Begins no batch any more, and ends the work on those begun after the slices in hand."""
        self.is_stopping = True
        for run in self.runs.values():
            run.stop()

    async def close(self) -> None:
        self.stop()
        await self.background.close()
        await asyncio.gather(*(task.close() for task in list(self.tasks.values())))

    async def run_forever(self) -> None:
        while True:
            if self.is_open() and not self.is_stopping:
                try:
                    await self.claim_all()
                    await self.show()
                    await self.prune()
                    self.is_unavailable = False
                except StorageUnavailable:
                    if not self.is_unavailable:
                        log.warning("batches_wait", reason="the store cannot be read", hint="they go on once it is there again")
                    self.is_unavailable = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self.woken.wait(), self.parts.settings().poll_seconds)
            self.woken.clear()

    async def claim_all(self) -> None:
        """Takes as many batches as this gateway may work on at once. Raises StorageUnavailable."""
        free, busy = await self.parts.records.run(self.store.claimable)
        waiting = [(busy.get(job.owner, 0), job.created_at, job.id, job) for job in free if job.id not in self.tasks]
        heapify(waiting)
        while waiting and len(self.tasks) < self.parts.settings().max_running:
            num_busy, created_at, batch_id, job = heappop(waiting)
            if num_busy < busy.get(job.owner, 0):  # since then another one of its owner's was taken
                heappush(waiting, (busy[job.owner], created_at, batch_id, job))
                continue
            failure = await self.failure_of(job)
            if failure is None and not self.may_take(job):
                continue
            claim = partial(self.store.claim, seconds=self.parts.settings().lease_seconds)
            claimed = await self.parts.records.run(claim, job, self.name)
            if claimed is not None:
                busy[job.owner] = busy.get(job.owner, 0) + 1
                self.begin(claimed, failure)

    def may_take(self, job: BatchJob) -> bool:
        """Whether this gateway can go on with a batch: anyone can end one."""
        is_ending = job.status != "in_progress" or job.ending is not None or self.parts.clock() >= job.expires_at
        return is_ending or self.parts.road().standing(job.fingerprints or {}) == "same"

    async def failure_of(self, job: BatchJob) -> LineError | None:
        """Why a batch is to fail that nobody goes on with, or None."""
        if self.deaths.get(job.id, 0) >= MAX_DEATHS:
            return LineError("internal_error", "The server had an error while processing this batch.")
        if self.may_take(job) or self.parts.road().standing(job.fingerprints or {}) != "other":
            return None
        if await self.parts.records.run(self.store.seconds_free, job) < self.parts.settings().orphan_seconds:
            return None
        return LineError("model_changed", self.parts.road().other_vectors(job.fingerprints or {}), "model")

    def begin(self, job: BatchJob, failure: LineError | None) -> None:
        run = self.runs[job.id] = BatchRun(job, self.parts)
        task = BackgroundTask(
            f"batch-{job.id}", partial(self.work, run, failure), may_end=True, on_death=partial(self.on_death, job.id)
        )
        self.tasks[job.id] = task
        task.start()

    async def work(self, run: BatchRun, failure: LineError | None) -> None:
        try:
            job = await run.to_end(failure)
            if job.has_ended:
                self.deaths.pop(job.id, None)
                self.on_ended(job)
        finally:
            self.tasks.pop(run.job.id, None)
            self.runs.pop(run.job.id, None)
            self.woken.set()

    def on_death(self, batch_id: str) -> None:
        self.deaths[batch_id] = self.deaths.get(batch_id, 0) + 1

    async def show(self) -> None:
        """Sets the metrics, every SHOW_SECONDS: counting all batches is not for every look."""
        metrics, now = self.parts.metrics, self.parts.clock()
        metrics.running.set(len(self.tasks))
        if now - self.shown_at >= SHOW_SECONDS:
            self.shown_at = now
            metrics.show_unfinished(await self.parts.records.run(self.store.counts))

    async def prune(self) -> None:
        now = self.parts.clock()
        if now - self.pruned_at >= PRUNE_SECONDS:
            self.pruned_at = now
            await self.parts.records.run(self.store.prune, before=int(now - self.parts.settings().retention_days * DAY_SECONDS))
