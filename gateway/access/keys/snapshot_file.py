"""A file of the keys in force, for a gateway that starts while its store is unavailable: ids, digests and policies, but no key.

    magic     one line that names the format
    header    one line of JSON: the store it was read from, when, and the names of the policies' fields
    frames    of at most ROWS_AT_ONCE keys: four bytes of length, then MessagePack
    seal      HMAC-SHA256 of all before it, keyed by the store's identity: it detects damage and files of other stores

Anyone who can write the data folder is trusted as the gateway's own user, so the seal needs no secret. Only its owner can read the
file. It is replaced as a whole. Everything here may block.
"""

import hashlib
import hmac
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec

from gateway.access.keys.cached_key import CachedKey, allowance_of
from gateway.access.keys.key import Caller
from gateway.access.keys.policy import ALLOWANCE_FIELDS

FILE_NAME = "keys.snapshot"
UNFINISHED = ".keys.snapshot-"
MAGIC = b"embeddings-gateway keys 1\n"
SEAL_BYTES = hashlib.sha256().digest_size
MAX_BYTES = 2**30  # some five million keys
MAX_HEADER_BYTES = 4096
ROWS_AT_ONCE = 500  # more would delay the event loop's thread
STALE_SECONDS = 600.0  # an unfinished file older than this has no writer any more
CLOCK_SECONDS = 60.0  # the most that two machines' clocks may differ

Digest = Annotated[bytes, msgspec.Meta(min_length=SEAL_BYTES, max_length=SEAL_BYTES)]


class UnusableSnapshot(Exception):
    """The file exists but cannot be trusted. The text says why."""


class SnapshotHeader(msgspec.Struct, frozen=True):
    """`read_at` is in Unix seconds."""

    store: str
    read_at: float
    fields: tuple[str, ...]


class SnapshotRow(msgspec.Struct, frozen=True, array_like=True):
    public_id: str
    digest: Digest
    expires_at: float
    previous_digest: Digest
    previous_until: float
    models: tuple[str, ...]
    is_admin: bool
    allowance: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The keys in force at `read_at`, when the store was last read (Unix seconds)."""

    keys: dict[str, CachedKey]
    read_at: float


class SnapshotFile:
    """`identity` names the store by its address and user, without a password."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.path = folder / FILE_NAME
        self.key = hashlib.sha256(identity.encode()).digest()

    def write(self, snapshot: Snapshot) -> None:
        """Replaces the file atomically. Raises OSError."""
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        remove_stale(folder)
        handle, unfinished = tempfile.mkstemp(dir=folder, prefix=UNFINISHED)  # with mode 600
        try:
            with os.fdopen(handle, "wb") as file:
                seal = hmac.new(self.key, digestmod="sha256")
                for part in self.parts(snapshot):
                    seal.update(part)
                    file.write(part)
                file.write(seal.digest())
                file.flush()
                os.fsync(file.fileno())
            Path(unfinished).replace(self.path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise

    def parts(self, snapshot: Snapshot) -> Iterator[bytes]:
        yield MAGIC
        yield msgspec.json.encode(SnapshotHeader(self.key.hex(), snapshot.read_at, ALLOWANCE_FIELDS)) + b"\n"
        rest = iter(snapshot.keys.values())
        while some := list(islice(rest, ROWS_AT_ONCE)):
            frame = msgspec.msgpack.encode([row_of(known) for known in some])
            yield len(frame).to_bytes(4, "big") + frame

    def read(self, *, now: float, max_age_seconds: float) -> Snapshot | None:
        """Returns the snapshot, or None if there is no file.

        Raises UnusableSnapshot if it is damaged, from another store or version, or too old.
        """
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > MAX_BYTES:
                    raise UnusableSnapshot("it is too large")
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnusableSnapshot(f"it cannot be read: {error.strerror}") from None
        header, place = self.check_header(content)
        age = now - header.read_at
        if age > max_age_seconds:
            raise UnusableSnapshot(f"it is {age:.0f} s old, and at most {max_age_seconds:g} s are believed")
        if age < -CLOCK_SECONDS:
            raise UnusableSnapshot("it is from a time to come")
        try:
            keys = {known.caller.public_id: known for known in _read_keys(content, place)}
        except (msgspec.MsgspecError, ValueError) as error:
            raise UnusableSnapshot("it is damaged") from error
        return Snapshot(keys, header.read_at)

    def check_header(self, content: bytes) -> tuple[SnapshotHeader, int]:
        """Returns the header, and the offset of the first frame. Raises UnusableSnapshot."""
        end = content.find(b"\n", len(MAGIC), len(MAGIC) + MAX_HEADER_BYTES)
        if not content.startswith(MAGIC) or end < 0:
            raise UnusableSnapshot("it is of another version, or no snapshot of keys")
        try:
            header = msgspec.json.decode(content[len(MAGIC) : end], type=SnapshotHeader)
        except msgspec.MsgspecError as error:
            raise UnusableSnapshot("it is damaged") from error
        if header.store != self.key.hex():
            raise UnusableSnapshot("it is of another store")
        if not hmac.compare_digest(hmac.digest(self.key, memoryview(content)[:-SEAL_BYTES], "sha256"), content[-SEAL_BYTES:]):
            raise UnusableSnapshot("it is damaged")
        if header.fields != ALLOWANCE_FIELDS:
            raise UnusableSnapshot("it is of another version")
        return header, end + 1


def row_of(known: CachedKey) -> SnapshotRow:
    caller = known.caller
    return SnapshotRow(
        caller.public_id,
        known.digest,
        known.expires_at,
        known.previous_digest,
        known.previous_until,
        caller.models,
        caller.is_admin,
        msgspec.structs.astuple(caller.allowance),
    )


def _read_keys(content: bytes, place: int) -> Iterator[CachedKey]:
    end = len(content) - SEAL_BYTES
    decode = msgspec.msgpack.Decoder(list[SnapshotRow]).decode
    models: dict[tuple[str, ...], tuple[str, ...]] = {}  # most keys share their list with many others
    while place < end:
        begin = place + 4
        place = begin + int.from_bytes(content[place:begin], "big")
        for row in decode(content[begin:place]):
            allowance: Any = row.allowance
            shared = models.setdefault(row.models, row.models)
            caller = Caller(row.public_id, allowance_of(*allowance), shared, is_admin=row.is_admin)
            yield CachedKey(caller, row.digest, row.expires_at, row.previous_digest, row.previous_until)


def remove_stale(folder: Path) -> None:
    """Removes unfinished files of processes that were killed while writing."""
    for path in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
