"""What is done, on disk, in a folder beside the output: never half a shard, whenever the process or the machine ends.

A shard's vectors, ids, rejected rows and long texts are appended to a file each and synced; then a line in the journal says how
long each of them is, and is synced too. So what the journal does not vouch for is cut off by whoever goes on. Nothing is renamed or
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

from gateway.bulk import npy
from gateway.bulk.disk import sync_folder, write_whole
from gateway.bulk.job import BulkJob, read
from gateway.bulk.outcome import RejectedRow, ShardResult
from gateway.bulk.row import Id, Place
from gateway.errors import OperatorError

JOB, JOURNAL, LOCK, COMPLETE = "job.json", "journal", "lock", "complete"
VECTORS, IDS, REJECTED, LONG = "vectors.npy", "ids.jsonl", "rejected.jsonl", "long.jsonl"
INPUT = "input"  # what came through a pipe


class Checkpoint(Struct, frozen=True, kw_only=True):
    """All shards so far, together. The next one begins at row `row`, at `offset`."""

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
    def next(self) -> Place:
        return Place(self.row, self.offset, self.line, self.file)


ENCODER = msgspec.json.Encoder()
REJECTED_DECODER = msgspec.json.Decoder(RejectedRow)


class Journal:
    """One process at a time: `lock` is held until it ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done = Checkpoint()
        self.lock: BinaryIO | None = None
        self.files: dict[str, BinaryIO] = {}

    def acquire(self) -> None:
        """Raises OperatorError while another process writes here."""
        self.folder.mkdir(exist_ok=True)
        self.lock = (self.folder / LOCK).open("wb")
        try:
            import fcntl  # noqa: PLC0415 - not to be had on Windows
        except ImportError:
            return
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self.lock.fileno()).st_ino != (self.folder / LOCK).stat().st_ino:
                raise FileNotFoundError  # who held it has just removed the folder
        except OSError:
            self.lock.close()
            self.lock = None
            raise OperatorError(f"another process is at work in {self.folder}") from None

    @property
    def is_complete(self) -> bool:
        """Whether all rows are done, and what is left is to move files."""
        return (self.folder / COMPLETE).exists()

    def job(self) -> BulkJob | None:
        return read(self.folder / JOB)

    def clear(self) -> None:
        """Forgets what was done."""
        self.close_files()
        (self.folder / COMPLETE).unlink(missing_ok=True)  # first: without the files it would be untrue
        for name in (JOB, JOURNAL, VECTORS, IDS, REJECTED, LONG):
            (self.folder / name).unlink(missing_ok=True)

    def recall(self) -> None:
        """Only what was done, as of a journal that is complete, of whose files some were moved."""
        self.done, _ = recover(self.folder / JOURNAL)

    def open(self, job: BulkJob) -> None:
        """Ready to go on with `job`, which this journal is of, or to begin it."""
        if self.job() is None:
            self.clear()
            write_whole(self.folder / JOB, msgspec.json.encode(job))
        self.done, num_bytes = recover(self.folder / JOURNAL)
        ends = {
            JOURNAL: num_bytes,
            VECTORS: npy.num_bytes(self.done.num_vectors, job.dimensions),
            IDS: self.done.ids_bytes,
            REJECTED: self.done.rejected_bytes,
            LONG: self.done.long_bytes,
        }
        for name, end in ends.items():
            self.files[name] = self.truncate(name, end)
        if self.done == Checkpoint():
            self.files[VECTORS].seek(0)
            self.files[VECTORS].write(npy.header(0, job.dimensions))
        sync_folder(self.folder)

    def truncate(self, name: str, end: int) -> BinaryIO:
        """The file, open at `end`, where what is known of it ends."""
        file = (self.folder / name).open("r+b" if (self.folder / name).exists() else "w+b")
        if file.seek(0, os.SEEK_END) < end and self.done != Checkpoint():
            file.close()
            raise OperatorError(f"{self.folder / name} is shorter than it was: --restart begins anew")
        file.truncate(end)
        file.seek(end)
        return file

    def append(self, shard: ShardResult) -> None:
        """One more shard; the next one begins at `shard.next`. Raises OSError, and then nothing of it was done."""
        lines: dict[str, Sequence[Any]] = {IDS: shard.ids, REJECTED: shard.rejected, LONG: shard.long}
        contents = {name: ENCODER.encode_lines(each) for name, each in lines.items()}
        self.write(VECTORS, np.ascontiguousarray(shard.vectors, dtype="<f4").tobytes())
        for name, content in contents.items():
            self.write(name, content)
        before, place = self.done, shard.next
        num_chunked = sum(each.treatment == "chunked" for each in shard.long)
        done = Checkpoint(
            row=place.row,
            offset=place.offset,
            line=place.line,
            file=place.file,
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
        """In the input's order, also where a former run has moved them already."""
        path = self.folder / REJECTED
        path = path if path.exists() or moved is None else moved
        if self.done.num_rejected and path.exists():
            with path.open("rb") as file:
                yield from map(REJECTED_DECODER.decode, file)

    def complete(self) -> None:
        """From now on all rows are done."""
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
            except OSError:  # what could not be written before cannot be written now, and counts as not done
                continue
        self.files.clear()

    def close(self) -> None:
        """A folder in which nothing was begun is removed."""
        self.close_files()
        if self.lock is not None:
            if not (self.folder / JOB).exists():
                shutil.rmtree(self.folder, ignore_errors=True)
            self.lock.close()
            self.lock = None


def recover(path: Path) -> tuple[Checkpoint, int]:
    """The last line of the journal that is whole, and where it ends."""
    done, end = Checkpoint(), 0
    if not path.exists():
        return done, end
    with path.open("rb") as file:
        for line in file:
            found = parse_line(line)
            if found is None:
                break
            done, end = found, end + len(line)
    return done, end


def parse_line(line: bytes) -> Checkpoint | None:
    """None for a line that was not written to its end."""
    crc, _, content = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(content):
        return None
    return msgspec.json.decode(content, type=Checkpoint)
