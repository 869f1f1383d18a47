"""A journal of finished shards, in a folder beside the output: never half a shard, even if the process or the machine crashes.

A shard's vectors, ids, rejected rows and long texts are each appended to a file and synced. Then a line in the journal records the
length of each file, and is synced too. A later run truncates the files to the lengths in the last whole line. Nothing is renamed or
copied meanwhile, and a run of ten million rows leaves six files, not five thousand.
"""

import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
from msgspec import Struct

from gateway.bulk.disk import sync_folder, write_whole
from gateway.bulk.job import BulkJob, read
from gateway.bulk.outcome import RejectedRow, ShardResult
from gateway.bulk.row import Id, Position
from gateway.errors import OperatorError

JOB, JOURNAL, LOCK, COMPLETE = "job.json", "journal", "lock", "complete"
VECTORS, IDS, REJECTED, LONG = "vectors.npy", "ids.jsonl", "rejected.jsonl", "long.jsonl"
INPUT = "input"  # the spooled content of a pipe


class Checkpoint(Struct, frozen=True, kw_only=True):
    """The totals of all finished shards. The next shard begins at row `row`, at `offset`."""

    row: int = 0
    offset: int = 0
    line: int = 0
    file: int = 0
    num_vectors: int = 0
    num_rejected: int = 0
    num_tokens: int = 0
    ids_bytes: int = 0
    rejected_bytes: int = 0
    num_chunked: int = 0
    num_cut: int = 0
    long_bytes: int = 0
    are_integers: bool = True  # all ids

    @property
    def next(self) -> Position:
        return Position(self.row, self.offset, self.line, self.file)


ENCODER = msgspec.json.Encoder()
REJECTED_DECODER = msgspec.json.Decoder(RejectedRow)


class Journal:
    """The folder of unfinished work. One process at a time: the system releases `lock` however the process ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done = Checkpoint()
        self.lock: BinaryIO | None = None
        self.files: dict[str, BinaryIO] = {}
        self.dtype = np.dtype("<f4")  # of the vectors

    def acquire(self) -> None:
        """Makes the folder and locks it. Raises OperatorError if another process has the lock."""
        self.folder.mkdir(exist_ok=True)
        self.lock = (self.folder / LOCK).open("wb")
        try:
            import fcntl  # noqa: PLC0415 - not available on Windows
        except ImportError:
            return
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self.lock.fileno()).st_ino != (self.folder / LOCK).stat().st_ino:
                raise FileNotFoundError  # the process that had the lock has just removed the folder
        except OSError:
            self.lock.close()
            self.lock = None
            raise OperatorError(f"another process is at work in {self.folder}") from None

    @property
    def is_complete(self) -> bool:
        """Whether all rows are done, so that only files have to be moved."""
        return (self.folder / COMPLETE).exists()

    def job(self) -> BulkJob | None:
        return read(self.folder / JOB)

    def clear(self) -> None:
        """Deletes the finished work."""
        self.close_files()
        (self.folder / COMPLETE).unlink(missing_ok=True)  # first: it must not exist without the files
        for name in (JOB, JOURNAL, VECTORS, IDS, REJECTED, LONG):
            (self.folder / name).unlink(missing_ok=True)

    def recall(self) -> None:
        """Reads only `done`, of a complete journal, some of whose files may have been moved."""
        self.done, _ = recover(self.folder / JOURNAL)

    def open(self, job: BulkJob) -> None:
        """Opens the files to resume or begin `job`. A job that is already stored must be this one."""
        if self.job() is None:
            self.clear()
            write_whole(self.folder / JOB, msgspec.json.encode(job))
        self.dtype = job.row_type.dtype
        self.done, num_bytes = recover(self.folder / JOURNAL)
        ends = {
            JOURNAL: num_bytes,
            VECTORS: job.row_type.file_bytes(self.done.num_vectors),
            IDS: self.done.ids_bytes,
            REJECTED: self.done.rejected_bytes,
            LONG: self.done.long_bytes,
        }
        for name, end in ends.items():
            self.files[name] = self.truncate(name, end)
        if self.done == Checkpoint():
            self.files[VECTORS].seek(0)
            self.files[VECTORS].write(job.row_type.header(0))
        sync_folder(self.folder)

    def truncate(self, name: str, end: int) -> BinaryIO:
        """Opens a file and truncates it to `end`, its length in the journal. Raises OperatorError if it is shorter."""
        file = (self.folder / name).open("r+b" if (self.folder / name).exists() else "w+b")
        if file.seek(0, os.SEEK_END) < end and self.done != Checkpoint():
            file.close()
            raise OperatorError(f"{self.folder / name} is shorter than it was: --restart begins anew")
        file.truncate(end)
        file.seek(end)
        return file

    def append(self, shard: ShardResult) -> None:
        """Appends one shard. If it raises OSError, nothing of the shard counts as done."""
        lines: dict[str, Sequence[Any]] = {IDS: shard.ids, REJECTED: shard.rejected, LONG: shard.long}
        contents = {name: ENCODER.encode_lines(each) for name, each in lines.items()}
        self.write(VECTORS, np.ascontiguousarray(shard.vectors, dtype=self.dtype).tobytes())
        for name, content in contents.items():
            self.write(name, content)
        before, position = self.done, shard.next
        num_chunked = sum(each.treatment == "chunked" for each in shard.long)
        done = Checkpoint(
            row=position.row,
            offset=position.offset,
            line=position.line,
            file=position.file,
            num_vectors=before.num_vectors + len(shard.vectors),
            num_rejected=before.num_rejected + len(shard.rejected),
            num_tokens=before.num_tokens + shard.num_tokens,
            ids_bytes=before.ids_bytes + len(contents[IDS]),
            rejected_bytes=before.rejected_bytes + len(contents[REJECTED]),
            num_chunked=before.num_chunked + num_chunked,
            num_cut=before.num_cut + len(shard.long) - num_chunked,
            long_bytes=before.long_bytes + len(contents[LONG]),
            are_integers=before.are_integers and all(isinstance(each, int) for each in shard.ids),
        )
        content = ENCODER.encode(done)
        self.write(JOURNAL, b"%08x %s\n" % (zlib.crc32(content), content))
        self.done = done

    def write(self, name: str, content: bytes) -> None:
        if content:
            file = self.files[name]
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def ids(self) -> Iterator[Id]:
        with (self.folder / IDS).open("rb") as file:
            yield from map(msgspec.json.decode, file)

    def rejected(self, moved: Path | None = None) -> Iterator[RejectedRow]:
        """Yields the rejected rows in the input's order, from `moved` if an earlier run has moved the file there."""
        path = self.folder / REJECTED
        path = path if path.exists() or moved is None else moved
        if self.done.num_rejected and path.exists():
            with path.open("rb") as file:
                yield from map(REJECTED_DECODER.decode, file)

    def complete(self) -> None:
        """Records that all rows are done."""
        self.close_files()
        write_whole(self.folder / COMPLETE, b"")

    def remove(self) -> None:
        self.close_files()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close_files(self) -> None:
        for file in self.files.values():
            try:
                file.close()
            except OSError:  # bytes that could not be written before cannot be now; they count as not done
                continue
        self.files.clear()

    def close(self) -> None:
        """Closes the files and releases the lock. Removes the folder if no job was begun in it."""
        self.close_files()
        if self.lock is not None:
            if not (self.folder / JOB).exists():
                shutil.rmtree(self.folder, ignore_errors=True)
            self.lock.close()
            self.lock = None


def recover(path: Path) -> tuple[Checkpoint, int]:
    """Returns the checkpoint of the journal's last whole line, and the byte at which that line ends."""
    done, end = Checkpoint(), 0
    if not path.exists():
        return done, end
    with path.open("rb") as file:
        for line in file:
            found = _parse_line(line)
            if found is None:
                break
            done, end = found, end + len(line)
    return done, end


def _parse_line(line: bytes) -> Checkpoint | None:
    """Returns the checkpoint of a line, or None if the line was not fully written."""
    crc, _, content = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(content):
        return None
    return msgspec.json.decode(content, type=Checkpoint)
