"""The sweeper deletes files whose time is over, and what a writer that died, or a failed deletion, left behind.

Each gateway has one, and several may work at once on one table: every step may be done twice. The content goes first, then its row,
so that no content is ever without a row.
"""

import asyncio
import random

from gateway.background import BackgroundTask
from gateway.errors import StorageUnavailable
from gateway.files.records import FileRecords
from gateway.files.storage import BlobStorage
from gateway.files.table import PENDING, READY
from gateway.log import get_logger

ROWS_AT_ONCE = 100
REASONS = {READY: "expired", PENDING: "abandoned"}  # a deleted row's was logged when it was deleted

log = get_logger()


class Sweeper:
    """`is_running` tells whether it lives. A failing storage or database does not end it."""

    def __init__(self, records: FileRecords, storage: BlobStorage, *, sweep_seconds: float) -> None:
        self.records = records
        self.storage = storage
        self.sweep_seconds = sweep_seconds
        self.task = BackgroundTask("files", self.sweep_forever)
        self.start = self.task.start
        self.close = self.task.close

    @property
    def is_running(self) -> bool:
        return self.task.is_running

    async def sweep_forever(self) -> None:
        while True:
            try:
                await self.sweep()
            except StorageUnavailable:
                log.warning("files_not_swept", hint="it is tried again")
            # With jitter, so that several gateways do not sweep at once.
            await asyncio.sleep(self.sweep_seconds * random.uniform(0.5, 1.5))  # noqa: S311

    async def sweep(self) -> int:
        """Deletes all that is due. Returns the number of contents. Raises StorageUnavailable at the first that it cannot delete."""
        table, run = self.records.table, self.records.run
        if num_revoked := await run(table.bury_revoked):
            self.count("revoked", num_revoked)
            log.info("files_deleted", reason="revoked", files=num_revoked)
        num_deleted = 0
        while due := await run(table.due, limit=ROWS_AT_ONCE):
            for blob, state in due:
                if await run(table.claim, blob):
                    await self.storage.delete(blob)
                    await run(table.forget, blob)
                    num_deleted += 1
                    if state in REASONS:
                        self.count(REASONS[state])
                        log.info("file_deleted", blob=blob, reason=REASONS[state])
        totals = await run(table.totals)
        self.records.metrics.stored_files.set(totals.num_files)
        self.records.metrics.stored_bytes.set(totals.num_bytes)
        return num_deleted

    def count(self, reason: str, num_files: int = 1) -> None:
        self.records.metrics.deleted.labels(reason).inc(num_files)
