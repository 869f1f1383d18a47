"""The key store: creates, changes, revokes and reads keys in the database.

Every change is one transaction with its event in the audit trail, and increments the revision. Running gateways notice a new
revision, and read only the changed rows."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sql

from gateway.access.database import Database
from gateway.access.keys.audit import AuditEvent, write
from gateway.access.keys.cached_key import COLUMNS, CachedKey, cached_key
from gateway.access.keys.key import Key
from gateway.access.keys.key_record import KeyRecord, columns_of, key_record
from gateway.access.keys.policy import KeyPolicy, as_table, iso, policy_of
from gateway.access.schema import keys_table, revision_table
from gateway.errors import UnknownKey

ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Revision:
    """`number` counts every change; `counted` only those that marked their rows, which older versions do not do.

    `file` identifies the SQLite file, so that a replaced file is noticed.
    """

    number: int
    counted: int | None
    file: int | None = None


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """All keys in force if `is_whole`; else those that changed, and in `removed` the ids that are no longer in force."""

    revision: Revision
    is_whole: bool
    keys: dict[str, CachedKey]
    removed: list[str]


class KeyStore:
    """Every method may block: never call it on the event loop. Each raises OperatorError if the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.open = database.open
        self.close = database.close

    def add(self, key: Key, policy: KeyPolicy, *, by: str) -> KeyRecord:
        """Adds a key. `by` is the actor in the audit trail: `cli:` and a user, or `key:` and a public id."""
        with self.change() as (connection, revision):
            row = {"public_id": key.public_id, "digest": key.digest, "created_at": now(), "changed_in": revision}
            connection.execute(keys_table.insert().values(**row, **columns_of(policy)))
            write(connection, AuditEvent(now(), by, "create", key.public_id, as_table(policy)))
            return _find_record(connection, key.public_id)

    def amend(self, public_id: str, changes: Mapping[str, Any], *, by: str) -> KeyRecord:
        """Changes the policy of a key, even of an expired one. Raises UnknownKey or InvalidPolicy."""
        with self.change() as (connection, revision):
            before = _find_unrevoked(connection, public_id)
            policy = policy_of(changes, before.policy)
            self.update(connection, public_id, changed_in=revision, **columns_of(policy))
            told = {name: value for name, value in as_table(policy).items() if name in changes}
            write(connection, AuditEvent(now(), by, "limit", public_id, told))
            return _find_record(connection, public_id)

    def revoke(self, public_id: str, *, by: str) -> KeyRecord:
        """Revokes a key. Raises UnknownKey, also if the key is revoked already."""
        with self.change() as (connection, revision):
            _find_unrevoked(connection, public_id)
            self.update(connection, public_id, changed_in=revision, revoked_at=now())
            write(connection, AuditEvent(now(), by, "revoke", public_id, {}))
            return _find_record(connection, public_id)

    def rotate(self, key: Key, *, grace: timedelta, by: str) -> KeyRecord:
        """Replaces the secret of a key in force by that of `key`, which has the same id. The old secret is valid for `grace` more.

        It is still one key, with one set of limits and one usage, so they do not double meanwhile. Raises UnknownKey.
        """
        with self.change() as (connection, revision):
            before = _find_unrevoked(connection, key.public_id)
            if before.state != "active":
                raise UnknownKey(key.public_id)
            until = now() + grace if grace else None
            previous = before.key.digest if grace else None
            self.update(
                connection, key.public_id,
                changed_in=revision, digest=key.digest, previous_digest=previous, previous_until=until,
            )  # fmt: skip
            rotated = _find_record(connection, key.public_id)
            write(connection, AuditEvent(now(), by, "rotate", key.public_id, {"old_until": iso(until)}))
            return rotated

    def get(self, public_id: str) -> KeyRecord:
        """Returns a key, even a revoked one. Raises UnknownKey."""
        with self.database.read() as connection:
            return _find_record(connection, public_id)

    def page(self, *, limit: int, after: str | None = None) -> list[KeyRecord]:
        """Returns keys, revoked ones included, oldest first, beginning behind `after`. Raises UnknownKey if `after` is unknown."""
        chosen = keys_table.select().order_by(keys_table.c.created_at, keys_table.c.public_id).limit(limit)
        with self.database.read() as connection:
            if after is not None:
                last = _find_record(connection, after)
                place = sql.tuple_(keys_table.c.created_at, keys_table.c.public_id)
                chosen = chosen.where(place > sql.tuple_(sql.literal(last.created_at), sql.literal(after)))
            return [key_record(row) for row in connection.execute(chosen)]

    def all(self) -> Iterator[KeyRecord]:
        """Yields every key in the order of `page`."""
        after = None
        while page := self.page(limit=1000, after=after):
            yield from page
            after = page[-1].key.public_id

    def has_any(self) -> bool:
        """Whether a key is in force."""
        not_expired = keys_table.c.expires_at.is_(None) | (keys_table.c.expires_at > now())
        with self.database.read() as connection:
            found = sql.select(keys_table.c.public_id).where(keys_table.c.revoked_at.is_(None), not_expired).limit(1)
            return connection.scalar(found) is not None

    def read(self, seen: Revision | None = None) -> KeyChanges | None:
        """Returns the changes since `seen` if their rows are marked, else all keys; None if nothing changed."""
        with self.database.read() as connection:
            row = connection.execute(revision_table.select()).one()
            revision = Revision(row.number, row.counted, self.database.inode)
            if revision == seen:
                return None
            chosen = sql.select(*COLUMNS)
            is_whole = seen is None or not _is_incremental(seen, revision)
            if seen is None or is_whole:
                chosen = chosen.where(keys_table.c.revoked_at.is_(None))
            else:
                chosen = chosen.where(keys_table.c.changed_in > seen.number)
            changes = KeyChanges(revision, is_whole, {}, [])
            # Row by row: a hundred thousand at once would block every other thread, the event loop's too, for 0.1 s.
            for number, row in enumerate(connection.execution_options(yield_per=ROWS_AT_ONCE).execute(chosen)):
                if number % ROWS_AT_ONCE == 0:
                    self.database.goes_on()
                if row.revoked_at is None:
                    changes.keys[row.public_id] = cached_key(row)
                else:
                    changes.removed.append(row.public_id)
        return changes

    @contextmanager
    def change(self) -> Iterator[tuple[sql.Connection, int]]:
        """Yields a transaction and its new revision. It locks the revision's row first, so revisions are seen in order."""
        number, counted = revision_table.c.number, revision_table.c.counted
        with self.database.write() as connection:
            connection.execute(revision_table.update().values(number=number + 1, counted=counted + 1))
            yield connection, connection.execute(sql.select(number)).scalar_one()

    def update(self, connection: sql.Connection, public_id: str, **values: Any) -> None:
        connection.execute(keys_table.update().where(keys_table.c.public_id == public_id).values(**values))


def _is_incremental(seen: Revision, found: Revision) -> bool:
    """Whether every change between the two marked its rows. A restored backup goes backwards, and is read as a whole."""
    if seen.counted is None or found.counted is None or seen.file != found.file:
        return False
    return found.number > seen.number and found.number - seen.number == found.counted - seen.counted


def _find_record(connection: sql.Connection, public_id: str) -> KeyRecord:
    row = connection.execute(keys_table.select().where(keys_table.c.public_id == public_id)).first()
    if row is None:
        raise UnknownKey(public_id)
    return key_record(row)


def _find_unrevoked(connection: sql.Connection, public_id: str) -> KeyRecord:
    found = _find_record(connection, public_id)
    if found.revoked_at is not None:
        raise UnknownKey(public_id)
    return found


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
