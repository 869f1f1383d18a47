"""Writes one new file: committed whole, or nothing is left of it."""

import asyncio
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from gateway.background import launch
from gateway.errors import FileTooLarge, StorageQuotaExceeded, StorageUnavailable, UnknownFile
from gateway.files.records import FileRecords
from gateway.files.storage import BlobWriter
from gateway.files.stored_file import StoredFile, new_file_id
from gateway.log import get_logger

LEASE_SECONDS = 1800.0  # without a sign of life for so long, a writer counts as dead
RENEW_SECONDS = 300.0

log = get_logger()


@dataclass(slots=True, eq=False)
class FileWriter:
    """An async context manager: a block that ends without `commit` leaves nothing. Made by `FileStore.create`.

    `name` is that of its `blob`. `max_bytes` bounds the file, `quota_bytes` all files of the owner; None is without bound.
    """

    records: FileRecords
    blob: BlobWriter
    name: str
    owner: str
    max_bytes: int | None
    quota_bytes: int | None
    num_bytes: int = 0  # that were written
    renew_at: float = field(default_factory=lambda: time.monotonic() + RENEW_SECONDS)
    is_over: bool = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self.is_over:
            await self.discard()

    async def write(self, chunk: bytes) -> None:
        """Takes more of the content; the caller may go on once it returns.

        Raises FileTooLarge, StorageUnavailable, and StorageQuotaExceeded as soon as the file alone has more than its owner may.
        """
        self.num_bytes += len(chunk)
        if self.max_bytes is not None and self.num_bytes > self.max_bytes:
            raise FileTooLarge(self.max_bytes)
        if self.quota_bytes is not None and self.num_bytes > self.quota_bytes:
            raise StorageQuotaExceeded(self.quota_bytes)
        await self.blob.write(chunk)
        if time.monotonic() > self.renew_at:
            await self.renew()

    async def renew(self) -> None:
        """A sign of life, by which the sweepers of all gateways know that the file is still written. `write` gives it by itself.

        Raises StorageUnavailable, also if one of them has given the file up.
        """
        renew = self.records.table.renew
        if not await self.records.run(renew, self.name, num_bytes=self.num_bytes, lease_seconds=LEASE_SECONDS):
            raise StorageUnavailable
        self.renew_at = time.monotonic() + RENEW_SECONDS

    async def commit(
        self, *, purpose: str, filename: str, expires_after_seconds: float | None = None, file_id: str | None = None
    ) -> StoredFile:
        """Makes it a file, whole and durable. Without `expires_after_seconds` it stays until it is deleted.

        With `file_id` the first to commit this id wins: whoever comes later gets that file, and its own content is deleted. So a
        commit whose answer was lost may be tried again. Raises StorageQuotaExceeded, StorageUnavailable.
        """
        await self.blob.commit()
        now = self.records.clock()
        expires_at = now + expires_after_seconds if expires_after_seconds is not None else None
        file = StoredFile(file_id or new_file_id(), self.owner, purpose, filename, self.num_bytes, now, expires_at, self.name)
        try:
            published = await self.records.run(self.records.table.publish, file, quota_bytes=self.quota_bytes)
        except UnknownFile:
            raise StorageUnavailable from None  # a sweeper gave the row up
        self.is_over = published is file  # else the block's end deletes this content
        if self.is_over:
            self.records.metrics.written_bytes.inc(file.num_bytes)
            log.info("file_created", file=file.id, key=file.owner, purpose=file.purpose, bytes=file.num_bytes)
        return published

    async def discard(self) -> None:
        """Deletes what was written, even if the caller is cancelled meanwhile. What cannot be deleted now, the sweeper will."""
        self.is_over = True
        await asyncio.shield(launch(self._discard(), name="file-discard", is_awaited=False))

    async def _discard(self) -> None:
        table = self.records.table
        try:
            await self.blob.discard()
            await self.records.run(table.discard, self.name)
            await self.records.run(table.forget, self.name)
        except StorageUnavailable:
            log.warning("file_left_to_sweeper", blob=self.name)
