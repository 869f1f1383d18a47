"""The rows of files. Every method may block, and raises KeyStoreUnavailable if the database fails.

A row goes from "pending" to "ready" to "deleted". It is written before its content, so every content has a row: one whose writer
died is found by its row's `expires_at`, which a living writer moves on. A deleted row stays TOMBSTONE_SECONDS, so that a list that
is read page by page can go on behind a file that was just deleted.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sql

from gateway.access.database import Database
from gateway.access.schema import files_table, keys_table
from gateway.errors import StorageQuotaExceeded, UnknownFile
from gateway.files.stored_file import StoredFile, moment, seconds_of

PENDING, READY, DELETED = "pending", "ready", "deleted"
TOMBSTONE_SECONDS = 3600.0
OWNER_LOCK = 0x66696C65  # "file": any number that no other program takes

Order = Literal["asc", "desc"]
row = files_table.c


@dataclass(frozen=True, slots=True)
class FileTotals:
    """All files that are whole, of all keys."""

    num_files: int
    num_bytes: int


class FileTable:
    """`clock` gives Unix seconds."""

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self.database = database
        self.clock = clock

    def reserve(self, owner: str, blob: str, *, num_bytes: int, lease_seconds: float, quota_bytes: int | None) -> None:
        """Adds the row of a content that will be written. Raises StorageQuotaExceeded if `num_bytes` more are too many."""
        with self.of_owner(owner) as connection:
            if quota_bytes is not None:
                self.refuse_full(connection, owner, num_bytes=num_bytes, quota_bytes=quota_bytes)
            now = self.clock()
            connection.execute(
                files_table.insert().values(
                    blob=blob, owner=owner, state=PENDING, purpose="", filename="", bytes=num_bytes,
                    created_at=moment(now), expires_at=moment(now + lease_seconds),
                )
            )  # fmt: skip

    def renew(self, blob: str, *, num_bytes: int, lease_seconds: float) -> bool:
        """Moves the end of a pending row on, and its bytes up to `num_bytes`. Returns False if the row is gone."""
        more = {"expires_at": moment(self.clock() + lease_seconds), "bytes": sql.func.max(row.bytes, num_bytes)}
        if self.database.path is None:
            more["bytes"] = sql.func.greatest(row.bytes, num_bytes)
        with self.database.write() as connection:
            pending = files_table.update().where(row.blob == blob, row.state == PENDING)
            return connection.execute(pending.values(**more)).rowcount == 1

    def publish(self, file: StoredFile, *, quota_bytes: int | None) -> StoredFile:
        """Makes a pending row a file, and returns it. If a file has this id already, it is returned, and the row is deleted.

        Raises StorageQuotaExceeded, and UnknownFile if the row is gone, which its lease had given up.
        """
        with self.of_owner(file.owner) as connection:
            if (before := self.select(connection, file.owner, file.id)) is not None:
                self.bury(connection, row.blob == file.blob)
                return before
            own = connection.execute(sql.select(row.state).where(row.blob == file.blob)).scalar()
            if own != PENDING:
                raise UnknownFile(file.id)
            if quota_bytes is not None:
                self.refuse_full(connection, file.owner, num_bytes=file.num_bytes, quota_bytes=quota_bytes, without=file.blob)
            expires_at = moment(file.expires_at) if file.expires_at is not None else None
            connection.execute(
                files_table.update()
                .where(row.blob == file.blob)
                .values(
                    id=file.id, state=READY, purpose=file.purpose, filename=file.filename, bytes=file.num_bytes,
                    created_at=moment(file.created_at), expires_at=expires_at,
                )
            )  # fmt: skip
            return file

    def find(self, owner: str, file_id: str) -> StoredFile:
        """Raises UnknownFile."""
        with self.database.read() as connection:
            if (found := self.select(connection, owner, file_id)) is None:
                raise UnknownFile(file_id)
            return found

    def page(self, owner: str, *, purpose: str | None, limit: int, order: Order, after: str | None) -> list[StoredFile]:
        """Returns the owner's files in order of their creation, beginning behind `after`. Raises UnknownFile if it is unknown."""
        if after is not None and not after.isprintable():
            raise UnknownFile(after, param="after")
        if purpose is not None and not purpose.isprintable():
            return []
        place = sql.tuple_(row.created_at, row.id)
        by = [row.created_at, row.id] if order == "asc" else [row.created_at.desc(), row.id.desc()]
        chosen = files_table.select().where(row.owner == owner, self.is_ready()).order_by(*by).limit(limit)
        if purpose is not None:
            chosen = chosen.where(row.purpose == purpose)
        with self.database.read() as connection:
            if after is not None:
                last = connection.execute(sql.select(row.created_at).where(row.owner == owner, row.id == after)).scalar()
                if last is None:
                    raise UnknownFile(after, param="after")
                there = sql.tuple_(sql.literal(last), sql.literal(after))
                chosen = chosen.where(place > there if order == "asc" else place < there)
            return [_stored_file(each) for each in connection.execute(chosen)]

    def delete(self, owner: str, file_id: str) -> StoredFile:
        """Deletes a file's row; its content is the caller's to delete. Raises UnknownFile."""
        with self.database.write() as connection:
            if (found := self.select(connection, owner, file_id)) is None:
                raise UnknownFile(file_id)
            self.bury(connection, row.blob == found.blob)
            return found

    def discard(self, blob: str, *, after_seconds: float = 0.0) -> None:
        """Gives a row to the sweeper, which deletes the content, if there is any, and the row, after so long."""
        with self.database.write() as connection:
            self.bury(connection, row.blob == blob, after_seconds=after_seconds)

    def keep_tombstone(self, blob: str) -> None:
        """The content of this deleted row is gone. The row stays for a while: see the module."""
        with self.database.write() as connection:
            until = moment(self.clock() + TOMBSTONE_SECONDS)
            connection.execute(files_table.update().where(row.blob == blob, row.state == DELETED).values(expires_at=until))

    def bury_revoked(self) -> int:
        """Deletes the files of revoked keys: nobody can read them any more. Returns their number."""
        revoked = sql.exists().where(keys_table.c.public_id == row.owner, keys_table.c.revoked_at.is_not(None))
        with self.database.write() as connection:
            return self.bury(connection, (row.state == READY) & revoked)

    def due(self, *, limit: int) -> list[tuple[str, str]]:
        """Returns blob and state of rows whose time is over, the oldest first."""
        chosen = sql.select(row.blob, row.state).where(row.expires_at <= moment(self.clock())).order_by(row.expires_at).limit(limit)
        with self.database.read() as connection:
            return [(blob, state) for blob, state in connection.execute(chosen)]

    def claim(self, blob: str) -> bool:
        """Marks a due row as deleted, so that a writer that lives after all cannot publish it. Returns False if it is not due."""
        with self.database.write() as connection:
            is_due = (row.blob == blob) & (row.expires_at <= moment(self.clock()))
            return connection.execute(files_table.update().where(is_due).values(state=DELETED)).rowcount == 1

    def forget(self, blob: str) -> None:
        """Removes a deleted row."""
        with self.database.write() as connection:
            connection.execute(files_table.delete().where(row.blob == blob, row.state == DELETED))

    def totals(self) -> FileTotals:
        with self.database.read() as connection:
            sums = sql.select(sql.func.count(), sql.func.coalesce(sql.func.sum(row.bytes), 0)).where(row.state == READY)
            num_files, num_bytes = connection.execute(sums).one()
            return FileTotals(int(num_files), int(num_bytes))

    @contextmanager
    def of_owner(self, owner: str) -> Iterator[sql.Connection]:
        """A transaction that no other one of the same owner overlaps. On SQLite that is true of every one that writes."""
        with self.database.write() as connection:
            if self.database.path is None:
                lock = sql.func.pg_advisory_xact_lock(sql.literal(OWNER_LOCK, sql.Integer), sql.func.hashtext(owner))
                connection.execute(sql.select(lock))
            yield connection

    def refuse_full(
        self, connection: sql.Connection, owner: str, *, num_bytes: int, quota_bytes: int, without: str | None = None
    ) -> None:
        """Raises StorageQuotaExceeded if the owner's files and `num_bytes` are too many; the row `without` does not count."""
        chosen = sql.select(sql.func.coalesce(sql.func.sum(row.bytes), 0)).where(row.owner == owner, row.state != DELETED)
        if without is not None:
            chosen = chosen.where(row.blob != without)
        if int(connection.execute(chosen).scalar_one()) + num_bytes > quota_bytes:
            raise StorageQuotaExceeded(quota_bytes)

    def select(self, connection: sql.Connection, owner: str, file_id: str) -> StoredFile | None:
        if not file_id.isprintable():
            return None  # PostgreSQL takes no NUL in a text
        chosen = files_table.select().where(row.id == file_id, row.owner == owner, self.is_ready())
        found = connection.execute(chosen).first()
        return _stored_file(found) if found is not None else None

    def is_ready(self) -> sql.ColumnElement[bool]:
        return (row.state == READY) & (row.expires_at.is_(None) | (row.expires_at > moment(self.clock())))

    def bury(self, connection: sql.Connection, which: sql.ColumnElement[bool], *, after_seconds: float = 0.0) -> int:
        values: dict[str, Any] = {"state": DELETED, "expires_at": moment(self.clock() + after_seconds)}
        return connection.execute(files_table.update().where(which, row.state != DELETED).values(**values)).rowcount


def _stored_file(found: Any) -> StoredFile:
    expires_at = seconds_of(found.expires_at) if found.expires_at is not None else None
    return StoredFile(
        found.id, found.owner, found.purpose, found.filename, found.bytes, seconds_of(found.created_at), expires_at, found.blob
    )
