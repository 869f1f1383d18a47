"""Stores that keep a connection and never answer: the connection is cut on our side, it is said, and a fresh one is tried."""

import asyncio
import errno
import os
import sqlite3
import threading

import pytest
from structlog.testing import capture_logs

from gateway.access import database as database_module
from gateway.access.database import Database
from gateway.access.keys.key import new_key
from gateway.access.keys.policy import policy_of
from gateway.access.keys.snapshot import KeySnapshot
from gateway.access.keys.store import KeyStore
from gateway.access.usage.store import UsageStore, UsageTotals
from gateway.access.worker import MAX_ABANDONED, WorkerThread, alive
from gateway.config import AuthSettings
from gateway.errors import InvalidKey, KeyStoreUnavailable, StoreUnavailable
from gateway.testing.fakes import FakeClock
from gateway.testing.swallowing_proxy import SwallowingProxy
from gateway.tests.access.conftest import BY, add, in_force, path_of, settings_of, store_in

pytestmark = pytest.mark.timeout(60)
SILENCE_SECONDS, PING_SECONDS = 2.0, 1.0  # enough for a machine that does much else


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(database_module, "PING_SECONDS", PING_SECONDS)


@pytest.fixture
def proxy(postgres):
    with SwallowingProxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def through(proxy, postgres, tmp_path):
    """A store reached over the proxy. `dropped` counts the connections that were cut."""
    url = postgres.new_database().replace(f":{postgres.port}/", f":{proxy.port}/")
    dropped = []
    database = Database(settings_of(url, tmp_path), on_dropped=lambda: dropped.append(1))
    store = KeyStore(database)
    store.open()
    database.silence_seconds = SILENCE_SECONDS
    store.dropped = dropped
    yield store
    store.close()


def test_an_idle_connection_that_answers_no_more_is_replaced_and_nobody_sees_it(through, proxy):
    add(through)
    proxy.swallow()
    with capture_logs() as lines:
        assert len(in_force(through)) == 1
        add(through)
    assert [line["event"] for line in lines] == ["store_connection_dropped"]
    assert lines[0]["reason"] == "no answer within 1 s"
    assert through.dropped == [1]


@pytest.mark.parametrize("words", [b"FROM revision", b"COMMIT"])
def test_one_that_falls_silent_within_a_transaction_is_cut_told_and_the_next_try_works(through, proxy, words):
    proxy.swallow_after = words
    with (
        capture_logs() as lines,
        pytest.raises(KeyStoreUnavailable, match=r"^the key database at 127\.0\.0\.1 cannot be used: no answer within"),
    ):
        through.read()
    assert [line["event"] for line in lines] == ["store_connection_dropped"]
    assert in_force(through) == []


def test_a_change_whose_commit_nobody_acknowledges_says_that_it_may_have_been_made(through, proxy):
    proxy.swallow_after = b"COMMIT"
    _, key = new_key()
    unsure = r"no answer within 2 s; whether the change was made is not known$"
    with capture_logs(), pytest.raises(KeyStoreUnavailable, match=unsure):
        through.add(key, policy_of({}), by=BY)
    add(through)  # what the lost transaction had locked is free again: the server gave it up by itself


def test_a_connection_that_is_silent_from_its_beginning_is_given_up(through, proxy):
    proxy.swallow(also_new=True)
    through.database.engine.dispose()
    with capture_logs(), pytest.raises(KeyStoreUnavailable, match=r"cannot be used: [^\n]*time"):
        through.read()
    proxy.mend()
    assert in_force(through) == []


def test_a_server_that_hangs_and_goes_on_is_used_again(through, postgres):
    add(through)
    with postgres.hung(), capture_logs(), pytest.raises(KeyStoreUnavailable):
        through.read()
    assert len(in_force(through)) == 1


def test_a_whole_reading_may_take_long_as_long_as_it_goes_on(through):
    """Each batch of rows is a sign of life."""
    for _ in range(3):
        add(through)
    with through.database.read() as connection:
        for _ in range(4):
            threading.Event().wait(SILENCE_SECONDS / 2)
            through.database.goes_on()
            connection.exec_driver_sql("SELECT 1")


def test_a_statement_without_an_end_is_interrupted_in_a_file_too(tmp_path):
    store = store_in(tmp_path, busy_timeout_seconds=0.1)
    store.open()
    store.database.silence_seconds = 0.3
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    with capture_logs(), pytest.raises(KeyStoreUnavailable, match=r"no answer within 0\.3 s"), store.database.read() as connection:
        connection.exec_driver_sql(endless)
    assert in_force(store) == []
    store.close()


def test_a_file_that_another_process_has_locked_says_so_in_time(file_store):
    impatient = store_in(path_of(file_store).parent, busy_timeout_seconds=0.2)
    other = sqlite3.connect(path_of(file_store), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(KeyStoreUnavailable, match="database is locked"):
        add(impatient)
    other.execute("ROLLBACK")
    other.close()
    add(impatient)
    impatient.close()


def test_connections_to_a_server_that_became_a_standby_are_left(through):
    """It takes no writes any more; whoever asks for the address anew finds the primary."""
    with through.database.write() as connection:
        connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    with pytest.raises(KeyStoreUnavailable, match="read-only transaction"):
        add(through)
    add(through)


def test_a_process_without_a_descriptor_left_says_so_and_goes_on_once_it_has(through, monkeypatch):
    def dup(_):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", dup)
        with pytest.raises(KeyStoreUnavailable, match=r"^the key database at 127\.0\.0\.1 cannot be used: Too many open files$"):
            through.read()
    assert in_force(through) == []


async def test_ten_minutes_of_a_store_that_hangs(through, proxy):
    """By a clock that is moved: known keys go on for their time, then 503 at once; and all is well as soon as the store is."""
    clock = FakeClock()
    text, _ = add(through)
    key_snapshot = KeySnapshot(AuthSettings(max_snapshot_age_seconds=300), through, clock)
    await key_snapshot.start()
    proxy.swallow(also_new=True)
    with capture_logs() as lines:
        while not key_snapshot.is_unavailable:
            await asyncio.sleep(0.02)
        for minute in range(10):
            assert clock() == 1000 + 60 * minute
            if minute < 5:
                assert (await key_snapshot.authenticate(text)).public_id
                with pytest.raises(InvalidKey):
                    await key_snapshot.authenticate(new_key()[0])  # at once: nobody is asked
            elif minute > 5:
                with pytest.raises(StoreUnavailable):
                    await key_snapshot.authenticate(text)
            clock.advance(60)
        proxy.mend()
        async with asyncio.timeout(30):
            while key_snapshot.is_unavailable:
                await asyncio.sleep(0.02)
        assert (await key_snapshot.authenticate(text)).public_id
    await key_snapshot.close()
    told = [line["event"] for line in lines if line["event"].startswith("key_store")]
    assert told == ["key_store_unavailable", "key_store_available"]


def test_usage_is_written_over_a_fresh_connection(through, proxy):
    usage_store = UsageStore(through.database)
    usage_store.add([UsageTotals("a", "m", "2026-11-25T08", 1, 1, 1, 0)])
    proxy.swallow()
    with capture_logs():
        usage_store.add([UsageTotals("a", "m", "2026-11-25T08", 1, 1, 1, 0)])
    assert [row.requests for row in usage_store.report(by="month", since="2000", limit=10)] == [2]


async def test_a_thread_that_never_comes_back_is_left_behind_and_the_next_work_is_done(worker):
    gate = threading.Event()
    with pytest.raises(KeyStoreUnavailable, match="gave no answer in time"):
        await worker.run(stuck, gate)
    assert await worker.run(int, "7") == 7
    gate.set()


async def test_no_more_threads_are_left_behind_than_a_few(worker, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr("gateway.access.worker.WAIT_SECONDS", 0.2)
    for _ in range(MAX_ABANDONED + 3):
        with pytest.raises(KeyStoreUnavailable):
            await worker.run(stuck, gate)
    assert len([thread for thread in threading.enumerate() if thread.name == "silent"]) == MAX_ABANDONED + 1
    gate.set()
    assert await until_done(worker) == 7


async def until_done(worker):
    async with asyncio.timeout(30):
        while True:
            try:
                return await worker.run(int, "7")
            except KeyStoreUnavailable:
                continue


def stuck(gate):
    alive(0.1)
    gate.wait()


@pytest.fixture
def worker():
    worker = WorkerThread("silent")
    yield worker
    worker.close()
