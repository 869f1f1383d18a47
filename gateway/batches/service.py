"""The batches of one process: what clients ask of them, and the runner. It outlives every configuration."""

import time
from collections.abc import Callable
from functools import partial

from gateway.access.database import Database
from gateway.batches.endpoint import BatchRoad
from gateway.batches.job import BatchJob, new_batch_id
from gateway.batches.records import BatchRecords
from gateway.batches.run import BatchParts
from gateway.batches.runner import BatchRunner
from gateway.batches.store import BatchStore
from gateway.batches.webhook import WebhookReporter
from gateway.config import BatchSettings, StoreSettings
from gateway.files.store import FileStore
from gateway.metrics import BatchMetrics
from gateway.wire.batches import BatchRequestBody


class BatchService:
    """Used on the event loop, which it never blocks. Every method for clients may raise StorageUnavailable.

    `files`, `road` and `settings` give those of the configuration in effect; while there are no files, no batch is worked on.
    """

    def __init__(  # noqa: PLR0913 - where its parts come from
        self,
        store: StoreSettings,
        *,
        files: Callable[[], FileStore | None],
        road: Callable[[], BatchRoad],
        settings: Callable[[], BatchSettings],
        metrics: BatchMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.database = Database(store)
        self.store = BatchStore(self.database, clock=clock)
        self.settings = settings
        self.clock = clock
        self.records = BatchRecords(self.store, name="batches-api")
        parts = BatchParts(
            records=BatchRecords(self.store, name="batches-store"),
            files=lambda: _required(files()),
            road=road,
            settings=settings,
            metrics=metrics,
            clock=clock,
        )
        self.webhook = WebhookReporter(
            BatchRecords(self.store, name="batches-webhook"),
            settings=settings,
            metrics=metrics,
            is_open=lambda: files() is not None,
        )
        self.runner = BatchRunner(parts, is_open=lambda: files() is not None, on_ended=lambda _: self.webhook.wake())

    async def create(self, body: BatchRequestBody, owner: str) -> BatchJob:
        """Makes a batch of a checked body. Raises RateLimited if the key has too many."""
        settings = self.settings()
        now = self.clock()
        job = BatchJob(
            id=new_batch_id(),
            owner=owner,
            endpoint=body.endpoint,
            input_file_id=body.input_file_id,
            completion_window=body.completion_window,
            status="validating",
            created_at=int(now),
            expires_at=int(now + settings.window_seconds),
            metadata=body.metadata,
            default_model=body.model,
            input_format=body.input_format,
            output_expires_seconds=body.output_expires_seconds,
            is_reported=settings.webhook_url is None,
        )
        added = await self.records.run(partial(self.store.add, max_unfinished=settings.max_unfinished_per_key), job)
        self.runner.wake()
        return added

    async def find(self, batch_id: str, owner: str) -> BatchJob:
        """Raises UnknownBatch."""
        return await self.records.run(self.store.find, batch_id, owner)

    async def page(self, owner: str, *, limit: int, after: str | None) -> list[BatchJob]:
        """Raises UnknownBatch if `after` is unknown."""
        return await self.records.run(partial(self.store.page, limit=limit, after=after), owner)

    async def cancel(self, batch_id: str, owner: str) -> BatchJob:
        """Raises UnknownBatch and BatchEnded."""
        job = await self.records.run(partial(self.store.cancel, by=f"key:{owner}"), batch_id, owner)
        if (run := self.runner.runs.get(batch_id)) is not None:
            run.learn(job)
        self.runner.wake()
        return job

    @property
    def has_died(self) -> bool:
        """Whether batches are no longer worked on, until the process is restarted."""
        return self.runner.background.death is not None or self.webhook.background.death is not None

    def start(self) -> None:
        self.runner.start()
        self.webhook.background.start()

    async def stop(self) -> None:
        """Ends the work; batches under way are given back. Clients are still answered."""
        await self.webhook.background.close()
        await self.runner.close()

    async def close(self) -> None:
        await self.stop()
        for records in (self.records, self.runner.parts.records, self.webhook.records):
            records.close()
        self.database.close()


def _required(files: FileStore | None) -> FileStore:
    if files is None:
        raise RuntimeError("files are not served any more")  # the run ends, and its lease with it
    return files
