"""An older version's database becomes one of this version, and both versions work on it side by side."""

import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy as sql

from gateway.access.keys.key import new_key
from gateway.access.keys.policy import KeyPolicy
from gateway.access.keys.store import Revision
from gateway.access.schema import LATEST, metadata, schema_table
from gateway.errors import InvalidKey, OperatorError
from gateway.tests.access.conftest import BY, add, in_force, opened

NUM_AT_ONCE = 6

# The first version's tables and what it did with them, as it was released.
first = sql.MetaData()
old_keys = sql.Table(
    "keys",
    first,
    sql.Column("public_id", sql.String(64), primary_key=True),
    sql.Column("name", sql.String(200), nullable=False),
    sql.Column("digest", sql.LargeBinary(32), nullable=False),
    sql.Column("created_at", sql.DateTime, nullable=False),
    sql.Column("revoked_at", sql.DateTime),
)
old_revision = sql.Table("revision", first, sql.Column("number", sql.Integer, nullable=False))


class OldStore:
    """What the first version did, statement by statement."""

    def __init__(self, engine: sql.Engine) -> None:
        self.engine = engine

    def open(self) -> None:
        with self.engine.begin() as connection:
            first.create_all(connection)
            if connection.scalar(sql.select(old_revision.c.number)) is None:
                connection.execute(old_revision.insert().values(number=1))

    def add(self, name: str = "old") -> tuple[str, str]:
        text, key = new_key()
        with self.engine.begin() as connection:
            row = {"public_id": key.public_id, "digest": key.digest, "name": name, "created_at": datetime(2026, 11, 1)}  # noqa: DTZ001
            connection.execute(old_keys.insert().values(**row))
            self.move(connection)
        return text, key.public_id

    def revoke(self, public_id: str) -> None:
        in_force = (old_keys.c.public_id == public_id) & old_keys.c.revoked_at.is_(None)
        with self.engine.begin() as connection:
            revoked_at = datetime.now(UTC).replace(tzinfo=None)
            assert connection.execute(old_keys.update().where(in_force).values(revoked_at=revoked_at)).rowcount == 1
            self.move(connection)

    def move(self, connection: sql.Connection) -> None:
        connection.execute(old_revision.update().values(number=old_revision.c.number + 1))

    def in_force(self) -> list[str]:
        with self.engine.begin() as connection:
            rows = connection.execute(old_keys.select().order_by(old_keys.c.created_at)).all()
        return [row.public_id for row in rows if row.revoked_at is None]


@pytest.fixture
def old(another):
    """A store of the first version, on the database that `another` opens."""
    store = another()
    if store.database.path is None:
        engine = sql.create_engine(store.database.engine.url)
    else:
        store.database.path.parent.mkdir(parents=True)
        engine = sql.create_engine(f"sqlite:///{store.database.path}")
    old = OldStore(engine)
    yield old
    engine.dispose()


def columns(store):
    with store.database.read() as connection:
        inspected = sql.inspect(connection)
        return {table: {each["name"] for each in inspected.get_columns(table)} for table in inspected.get_table_names()}


def declared():
    return {table.name: set(table.columns.keys()) for table in metadata.sorted_tables}


def test_a_new_database_has_every_table_and_column(store):
    assert columns(store) == declared()


def test_a_database_of_the_first_version_keeps_its_keys_and_gains_the_rest(old, another):
    old.open()
    text, public_id = old.add()
    _, gone = old.add()
    old.revoke(gone)
    store = another()
    store.open()
    assert columns(store) == declared()
    assert opened(store).caller(text).public_id == public_id
    found = store.get(public_id)
    assert (found.policy, found.state) == (KeyPolicy(name="old"), "active")
    assert store.get(gone).state == "revoked"
    assert store.amend(public_id, {"requests_per_minute": 5}, by=BY).policy.requests_per_minute == 5


def test_the_first_version_goes_on_reading_and_writing_what_was_upgraded(old, another):
    old.open()
    _, one = old.add()
    store = another()
    store.open()
    old.open()  # an old process starts again beside the new one
    _, key = add(store, models=["m"], requests_per_minute=5)
    assert sorted(old.in_force()) == sorted([one, key.public_id])
    _, two = old.add()
    old.revoke(key.public_id)
    assert sorted(in_force(store)) == sorted([one, two])
    store.revoke(one, by=BY)
    assert old.in_force() == [two]


def test_changes_by_the_first_version_are_noticed_though_it_does_not_mark_them(old, another):
    old.open()
    store = another()
    store.open()
    (one, one_id), (two, two_key) = old.add(), add(store)
    key_snapshot = opened(store)
    three, _ = old.add()
    old.revoke(one_id)
    store.amend(two_key.public_id, {"is_admin": True}, by=BY)
    key_snapshot.refresh()
    assert key_snapshot.caller(three)
    assert key_snapshot.caller(two).is_admin
    with pytest.raises(InvalidKey):
        key_snapshot.caller(one)
    seen = key_snapshot.revision
    store.amend(two_key.public_id, {"is_admin": False}, by=BY)
    assert store.read(seen).is_whole is False  # and afterwards only what changed is read again


def test_a_backup_that_was_put_back_is_read_whole(store):
    add(store)
    assert store.read(Revision(50, 50, store.database.inode)).is_whole
    assert not store.read(Revision(1, 1, store.database.inode)).is_whole


def test_processes_that_upgrade_at_once_do_not_meet(old, another):
    old.open()
    _, public_id = old.add()
    stores = [another() for _ in range(NUM_AT_ONCE)]
    barrier, errors = threading.Barrier(NUM_AT_ONCE), []

    def open_one(store):
        barrier.wait()
        try:
            store.open()
        except OperatorError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_one, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert columns(stores[0]) == declared()
    assert [store.read().revision for store in stores] == [Revision(2, 2, stores[0].database.inode)] * NUM_AT_ONCE
    assert in_force(stores[0]) == [public_id]
    with stores[0].database.read() as connection:
        assert connection.execute(schema_table.select()).all() == [(LATEST, 1)]


def test_a_newer_database_that_only_has_more_is_used(store, another):
    with store.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE keys ADD COLUMN colour TEXT")
        connection.execute(schema_table.update().values(version=LATEST + 1))
    newer = another()
    newer.open()
    _, key = add(newer)
    assert in_force(newer) == [key.public_id]
    with store.database.read() as connection:
        assert connection.scalar(sql.select(schema_table.c.version)) == LATEST + 1


def test_a_newer_database_that_this_version_cannot_read_is_told_in_one_line(store, another):
    with store.database.write() as connection:
        connection.execute(schema_table.update().values(version=LATEST + 5, readable_from=LATEST + 1))
    with pytest.raises(OperatorError, match=rf"^the key database was made by a newer version .* is {LATEST + 5}, [^\n]*upgrade"):
        another().open()
