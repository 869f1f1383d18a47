"""The file store: creates, lists, reads and deletes files. Whose file is whose is decided here, and nowhere else."""

import asyncio
import errno
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import IO

from gateway.access.database import Database
from gateway.config import FileSettings, StoreSettings
from gateway.errors import StorageUnavailable, UnknownFile
from gateway.files.folder_storage import FolderStorage
from gateway.files.lines import split_lines
from gateway.files.records import FileRecords
from gateway.files.s3_storage import build_s3_storage
from gateway.files.storage import BlobStorage
from gateway.files.stored_file import StoredFile, random_name
from gateway.files.sweeper import Sweeper
from gateway.files.table import Order
from gateway.files.writer import LEASE_SECONDS, FileWriter
from gateway.log import get_logger
from gateway.metrics.files import FileMetrics

MAX_PAGE = 10_000  # OpenAI's
UNSURE_SECONDS = 60.0  # after which a content whose `create` failed, and may still come, is deleted

log = get_logger()


class FileStore:
    """Used on the event loop, which it never blocks. Several gateways may share one database and one storage.

    Every method may raise StorageUnavailable. `owner` is the public id of a key: a file of another owner is an unknown one.
    `clock` gives Unix seconds.
    """

    def __init__(
        self,
        settings: FileSettings,
        storage: BlobStorage,
        database: Database,
        *,
        metrics: FileMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.storage = storage
        self.clock = clock
        self.metrics = metrics
        self.records = FileRecords(database, metrics, clock=clock)
        self.sweeper = Sweeper(self.records, storage, sweep_seconds=settings.sweep_seconds)

    async def start(self) -> None:
        """Opens the database and the storage. Raises OperatorError."""
        await self.records.start()
        await self.storage.start()
        self.sweeper.start()

    async def close(self) -> None:
        await self.sweeper.close()
        await self.storage.close()
        await self.records.close()

    @property
    def parts(self) -> dict[str, Callable[[], bool]]:
        """The background tasks by name, each with a function that tells whether it runs."""
        return {"files": lambda: self.sweeper.is_running}

    async def create(self, owner: str, *, num_bytes: int = 0, max_bytes: int | None = None, is_charged: bool = True) -> FileWriter:
        """Returns a writer; enter it with `async with`. `num_bytes` are reserved of the owner's quota, if it `is_charged`.

        Without `is_charged` the file counts, but is never refused for the quota. Raises StorageQuotaExceeded.
        """
        name, table = random_name(), self.records.table
        quota = self.settings.max_bytes_per_key if is_charged else None
        await self.records.run(table.reserve, owner, name, num_bytes=num_bytes, lease_seconds=LEASE_SECONDS, quota_bytes=quota)
        try:
            blob = await self.storage.create(name)
        except BaseException:
            await self.records.run(table.discard, name, after_seconds=UNSURE_SECONDS)
            raise
        return FileWriter(self.records, blob, name, owner, max_bytes, quota)

    async def get(self, owner: str, file_id: str) -> StoredFile:
        """Raises UnknownFile."""
        return await self.records.run(self.records.table.find, owner, file_id)

    async def list(
        self, owner: str, *, purpose: str | None = None, limit: int = MAX_PAGE, order: Order = "desc", after: str | None = None
    ) -> list[StoredFile]:
        """Returns at most `limit` files by their creation, behind the file `after`. Raises UnknownFile if there is no `after`."""
        return await self.records.run(self.records.table.page, owner, purpose=purpose, limit=limit, order=order, after=after)

    async def delete(self, owner: str, file_id: str) -> None:
        """From now on nobody finds the file; a reader that has begun may read on. Raises UnknownFile."""
        table = self.records.table
        file = await self.records.run(table.delete, owner, file_id)
        self.metrics.deleted.labels("request").inc()
        log.info("file_deleted", file=file.id, key=file.owner, purpose=file.purpose, bytes=file.num_bytes, reason="request")
        try:
            await self.storage.delete(file.blob)
            await self.records.run(table.keep_tombstone, file.blob)
        except StorageUnavailable:
            log.warning("file_left_to_sweeper", blob=file.blob)

    async def read(self, file: StoredFile, *, start: int = 0) -> AsyncGenerator[bytes]:
        """Yields the content from byte `start` on, in chunks of at most 256 KB. Raises UnknownFile if its time is over."""
        if file.expires_at is not None and file.expires_at <= self.clock():
            raise UnknownFile(file.id)
        async with aclosing(self.storage.read(file.blob, start=start, stop=file.num_bytes)) as chunks:
            async for chunk in chunks:
                self.metrics.read_bytes.inc(len(chunk))
                yield chunk

    @asynccontextmanager
    async def on_disk(self, file: StoredFile) -> AsyncIterator[Path]:
        """The content as a file of this machine, for the length of the block; not to be changed. Raises what `read` raises."""
        path = self.storage.path_of(file.blob)
        if path is not None:
            yield path
            return
        with tempfile.NamedTemporaryFile(prefix="gateway-") as copy:
            async for chunk in self.read(file):
                await asyncio.to_thread(_write, copy, chunk)
            yield Path(copy.name)

    def lines(self, file: StoredFile, *, start: int = 0, max_line_bytes: int | None = None) -> AsyncIterator[bytes]:
        """Yields the lines from byte `start` on, see `split_lines`. Raises what `read` raises."""
        return split_lines(self.read(file, start=start), max_line_bytes=max_line_bytes)


def _write(file: IO[bytes], chunk: bytes) -> None:
    """Raises StorageUnavailable."""
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise StorageUnavailable(is_full=error.errno == errno.ENOSPC) from None


def build_file_store(settings: FileSettings, store: StoreSettings, metrics: FileMetrics) -> FileStore:
    """Builds the store; nothing is opened. Raises ConfigurationError."""
    return FileStore(settings, _build_storage(settings, store, metrics), Database(store), metrics=metrics)


def _build_storage(settings: FileSettings, store: StoreSettings, metrics: FileMetrics) -> BlobStorage:
    if settings.s3_bucket is not None:
        return build_s3_storage(settings, metrics)
    folder = store.folder / "files" if settings.folder is None else Path(settings.folder)
    return FolderStorage(folder, metrics, min_free_bytes=settings.min_free_bytes)
