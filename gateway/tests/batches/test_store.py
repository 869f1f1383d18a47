"""Leases and what only their holder may write, in SQLite and in PostgreSQL."""

import time

import pytest

from gateway.access.database import Database
from gateway.access.schema import batches_table, shards_table
from gateway.batches.job import BatchJob, ShardFiles, new_batch_id
from gateway.batches.store import BatchStore, LeaseLost
from gateway.bulk.row import Position
from gateway.config import StoreSettings
from gateway.errors import BatchEnded, RateLimited, UnknownBatch
from gateway.tests.access.conftest import settings_of


@pytest.fixture(scope="module")
def postgres_settings(postgres, tmp_path_factory):
    """One database for all tests: to make one takes a second."""
    return settings_of(postgres.new_database(), tmp_path_factory.mktemp("postgres"))


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path):
    is_postgres = request.param == "postgres"
    database = Database(request.getfixturevalue("postgres_settings") if is_postgres else StoreSettings(data_dir=str(tmp_path)))
    database.open()
    with database.write() as connection:
        for table in (batches_table, shards_table):
            connection.execute(table.delete())
    yield BatchStore(database)
    database.close()


def added(store, **more):
    facts = {
        "id": new_batch_id(), "owner": "a", "endpoint": "/v1/embeddings", "input_file_id": "file-x", "completion_window": "24h",
        "status": "validating", "created_at": int(time.time()), "expires_at": int(time.time()) + 60, **more,
    }  # fmt: skip
    return store.add(BatchJob(**facts), max_unfinished=100)


def test_a_batch_is_read_as_it_was_written(store):
    job = added(store, metadata={"a": "b"}, position=Position(1, 2, 3), output_expires_seconds=3600)
    assert store.find(job.id, "a") == job
    with pytest.raises(UnknownBatch):
        store.find(job.id, "b")


def test_one_gateway_at_a_time_has_the_lease(store):
    job = added(store)
    held = store.claim(job, "one", seconds=30)
    assert (held.lease_owner, held.lease_number) == ("one", 1)
    assert store.claim(job, "two", seconds=30) is None
    assert store.claim(held, "two", seconds=30) is None
    assert store.claimable() == ([], {"a": 1})
    store.release(held)
    [free], busy = store.claimable()
    assert busy == {}
    assert store.claim(free, "two", seconds=30).lease_number == 2
    assert store.seconds_free(job) < 0


def test_no_owners_many_batches_hide_those_of_another(store, monkeypatch):
    monkeypatch.setattr("gateway.batches.store.MAX_CLAIMABLE", 3)
    many = [added(store, created_at=number) for number in range(5)]
    late = added(store, owner="b", created_at=100)
    free, _ = store.claimable()
    assert [job.id for job in free] == [many[0].id, late.id, many[1].id]


@pytest.mark.parametrize("batch_id", ["batch_\x00", "\ud800", ""])
def test_an_id_that_no_database_takes_is_an_unknown_one(store, batch_id):
    for ask in (
        lambda: store.find(batch_id, "a"),
        lambda: store.page("a", limit=1, after=batch_id),
        lambda: store.cancel(batch_id, "a", by="key:a"),
    ):
        with pytest.raises(UnknownBatch):
            ask()


def test_a_lease_that_is_over_is_anybodys_and_its_holder_may_write_until_then(store):
    held = store.claim(added(store), "one", seconds=-1)
    assert store.renew(held, seconds=-1).lease_number == 1  # late, and nobody has taken it
    [free], _ = store.claimable()
    taken = store.claim(free, "two", seconds=30)
    for write in (
        lambda: store.renew(held, seconds=30), lambda: store.append(held, ShardFiles(0, "x", None), completed=1),
        lambda: store.end(held, "completed"), lambda: store.decide(held, "completed"), lambda: store.release(held),
    ):  # fmt: skip
        with pytest.raises(LeaseLost):
            write()
    assert store.find(held.id) == taken


def test_a_shard_is_written_once_however_often_it_is_sent(store):
    held = store.begin(store.claim(added(store), "one", seconds=30), total=3, model="m", fingerprints={"m": "f"})
    assert (held.status, held.fingerprints) == ("in_progress", {"m": "f"})
    for _ in range(2):
        now = store.append(held, ShardFiles(0, "out", None), completed=3, position=Position(0, 70, 3))
        assert (now.num_shards, now.completed, now.position.offset) == (1, 3, 70)
    assert store.shards(held) == [ShardFiles(0, "out", None)]


def test_the_first_decision_about_the_end_holds(store):
    held = store.begin(store.claim(added(store), "one", seconds=30), total=1, model="m", fingerprints={})
    assert store.decide(held, "expired").status == "finalizing"
    assert store.decide(held, "completed").ending == "expired"
    with pytest.raises(BatchEnded):
        store.cancel(held.id, "a", by="key:a")
    ended = store.end(held, "expired", failed=1)
    assert (ended.status, ended.failed, ended.expired_at is not None) == ("expired", 1, True)
    assert store.claimable() == ([], {})


def test_a_cancellation_wins_over_a_later_decision(store):
    held = store.begin(store.claim(added(store), "one", seconds=30), total=1, model="m", fingerprints={})
    store.cancel(held.id, "a", by="key:a")
    assert store.decide(held, "completed").ending == "cancelled"


def test_a_key_has_so_many_unfinished_batches_at_most(store):
    job = added(store)
    with pytest.raises(RateLimited):
        store.add(BatchJob(**{**{name: getattr(job, name) for name in job.__struct_fields__}, "id": "other"}), max_unfinished=1)
    added(store, owner="b")


def test_ended_batches_are_forgotten_and_others_are_not(store):
    ended = store.claim(added(store, is_reported=False), "one", seconds=30)
    store.append(ended, ShardFiles(0, "x", None))
    store.end(ended, "completed")
    waiting = added(store)
    assert store.counts() == {"validating": 1}
    assert [job.id for job in store.unreported(limit=9)] == [ended.id]
    store.mark_reported(ended)
    assert store.unreported(limit=9) == []
    store.prune(before=int(time.time()) + 10)
    assert store.page(None, limit=9) == [waiting]
    assert store.shards(ended) == []
