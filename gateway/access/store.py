"""Keys at rest: one table, and a revision that every change moves, so that readers notice without reading it all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError

from gateway.access.keys import Key
from gateway.errors import OperatorError

BUSY_TIMEOUT_SECONDS = 5.0
FILE_NAME = "gateway.db"

metadata = sql.MetaData()
keys_table = sql.Table(
    "keys",
    metadata,
    sql.Column("public_id", sql.String(64), primary_key=True),
    sql.Column("name", sql.String(200), nullable=False),
    sql.Column("digest", sql.LargeBinary(32), nullable=False),
    sql.Column("created_at", sql.DateTime, nullable=False),  # UTC, as SQLite keeps no zone
    sql.Column("revoked_at", sql.DateTime),
)
revision_table = sql.Table("revision", metadata, sql.Column("number", sql.Integer, nullable=False))


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as `gateway keys list` shows it."""

    key: Key
    name: str
    created_at: datetime
    revoked_at: datetime | None


class KeyStore:
    """The database of keys, in `folder`. Every method may block: off the event loop only. Each raises OperatorError on failure."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self.engine = sql.create_engine(
            sql.URL.create("sqlite", database=str(self.path)), connect_args={"timeout": BUSY_TIMEOUT_SECONDS}
        )

    def open(self) -> None:
        """Makes the folder and the tables where there are none. Its owner alone may read them."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.touch(mode=0o600)
        except OSError as error:
            raise OperatorError(f"the data folder {self.path.parent} cannot be written: {error.strerror}") from None
        with self.transaction() as connection:
            connection.execute(sql.text("PRAGMA journal_mode=WAL"))
            metadata.create_all(connection)
            if connection.scalar(sql.select(revision_table.c.number)) is None:
                connection.execute(revision_table.insert().values(number=1))

    def add(self, key: Key, *, name: str) -> None:
        with self.change() as connection:
            connection.execute(keys_table.insert().values(public_id=key.public_id, digest=key.digest, name=name, created_at=now()))

    def revoke(self, public_id: str) -> bool:
        """False where no such key is in force."""
        in_force = (keys_table.c.public_id == public_id) & keys_table.c.revoked_at.is_(None)
        with self.change() as connection:
            return connection.execute(keys_table.update().where(in_force).values(revoked_at=now())).rowcount > 0

    def revision(self) -> int:
        with self.transaction() as connection:
            return connection.scalar(sql.select(revision_table.c.number)) or 0

    def all(self) -> list[StoredKey]:
        """Revoked ones included, oldest first."""
        with self.transaction() as connection:
            rows = connection.execute(keys_table.select().order_by(keys_table.c.created_at)).all()
        return [StoredKey(Key(row.public_id, row.digest), row.name, row.created_at, row.revoked_at) for row in rows]

    def in_force(self) -> list[Key]:
        return [stored.key for stored in self.all() if stored.revoked_at is None]

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def change(self) -> Iterator[sql.Connection]:
        with self.transaction() as connection:
            yield connection
            connection.execute(revision_table.update().values(number=revision_table.c.number + 1))

    @contextmanager
    def transaction(self) -> Iterator[sql.Connection]:
        try:
            with self.engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or type(error).__name__)
            raise OperatorError(f"the key database {self.path} cannot be used: {reason}") from error


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
