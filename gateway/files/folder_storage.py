"""A storage in a folder. Atomic: a content is written beside its place, synced, then renamed into it.

All disk work is in the storage's own threads: a disk that hangs holds up files, and nothing else.
"""

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from gateway.errors import OperatorError, StorageUnavailable
from gateway.files.storage import CHUNK_BYTES
from gateway.log import get_logger
from gateway.metrics.files import FileMetrics

NUM_THREADS = 4
BUFFER_BYTES = 1024 * 1024  # collected before a thread writes them
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PART = ".part"  # of what is not whole yet

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

log = get_logger()


class FolderStorage:
    """A `BlobStorage` in `folder`. It writes nothing while the disk has less than `min_free_bytes` free."""

    def __init__(self, folder: Path, metrics: FileMetrics, *, min_free_bytes: int) -> None:
        self.folder = folder
        self.metrics = metrics
        self.min_free_bytes = min_free_bytes
        self.threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="files-disk")

    async def start(self) -> None:
        """Makes the folder, for its owner alone."""
        try:
            await asyncio.get_running_loop().run_in_executor(
                self.threads, lambda: self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            )
        except OSError as error:
            raise OperatorError(f"files: the folder {self.folder} cannot be made: {error.strerror}") from None

    async def create(self, name: str) -> "FolderWriter":
        path = self.path_of(name)
        return FolderWriter(self, path, await self.opened(lambda: self.open_part(path)))

    async def read(self, name: str, *, start: int, stop: int) -> AsyncGenerator[bytes]:
        file = await self.opened(lambda: self.path_of(name).open("rb", 0))
        try:
            await self.run(file.seek, start)
            while start < stop:
                chunk = await self.run(_read, file, min(CHUNK_BYTES, stop - start))
                start += len(chunk)
                yield chunk
        finally:
            self.threads.submit(file.close)  # a reader that stops early is not kept waiting

    async def delete(self, name: str) -> None:
        path = self.path_of(name)
        for each in (path, _part_of(path)):
            await self.run(each.unlink, missing_ok=True)

    async def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=False)

    def path_of(self, name: str) -> Path:
        return self.folder / name[:2] / name

    async def run(self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """Runs `work` in a thread of the storage. Raises StorageUnavailable for an OSError, whose reason is logged."""
        with self.failures():
            return await asyncio.get_running_loop().run_in_executor(self.threads, lambda: work(*args, **kwargs))

    async def opened(self, open_file: Callable[[], BinaryIO]) -> BinaryIO:
        """As `run`. A file that opens once its caller was cancelled is closed."""
        opening = self.threads.submit(open_file)
        with self.failures():
            try:
                return await asyncio.wrap_future(opening)
            except asyncio.CancelledError:
                opening.add_done_callback(_close_opened)
                raise

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Counts and logs an OSError. Raises StorageUnavailable in its place."""
        try:
            yield
        except OSError as error:
            is_full = error.errno in FULL
            self.metrics.failures.labels("full" if is_full else "content").inc()
            log.warning("file_storage_failed", folder=str(self.folder), reason=error.strerror, is_full=is_full)
            raise StorageUnavailable(is_full=is_full) from None

    def open_part(self, path: Path) -> BinaryIO:
        self.check_room()
        path.parent.mkdir(exist_ok=True, mode=0o700)
        return os.fdopen(os.open(_part_of(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)

    def check_room(self) -> None:
        """Raises OSError if the disk is as full as it may be."""
        if shutil.disk_usage(self.folder).free < self.min_free_bytes:
            raise OSError(errno.ENOSPC, "less than files.min_free_bytes is free")


class FolderWriter:
    """A `BlobWriter`. Until it is whole, its file has the name's end PART.

    Its lock orders the threads: a caller that is cancelled discards while a thread still writes.
    """

    def __init__(self, storage: FolderStorage, path: Path, file: BinaryIO) -> None:
        self.storage = storage
        self.path = path
        self.file = file
        self.buffer = bytearray()
        self.lock = threading.Lock()
        self.is_removed = False

    async def write(self, chunk: bytes) -> None:
        self.buffer += chunk
        if len(self.buffer) >= BUFFER_BYTES:
            await self.storage.run(self.locked, self.flush)

    async def commit(self) -> None:
        await self.storage.run(self.locked, self.finish)

    async def discard(self) -> None:
        await self.storage.run(self.locked, self.remove)

    def locked(self, work: Callable[[], None]) -> None:
        with self.lock:
            if not self.is_removed:
                work()

    def flush(self) -> None:
        self.storage.check_room()
        rest = memoryview(bytes(self.buffer))
        self.buffer.clear()
        while rest:
            rest = rest[self.file.write(rest) :]

    def finish(self) -> None:
        self.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        _part_of(self.path).rename(self.path)
        _sync_folder(self.path.parent)

    def remove(self) -> None:
        self.is_removed = True
        self.file.close()
        for each in (self.path, _part_of(self.path)):
            each.unlink(missing_ok=True)


def _close_opened(opening: "Future[BinaryIO]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _read(file: BinaryIO, num_bytes: int) -> bytes:
    if not (chunk := file.read(num_bytes)):
        raise OSError(errno.EIO, "the content is shorter than it was written")
    return chunk


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
