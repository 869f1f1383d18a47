"""The keys in a file: what a gateway that starts without its store may believe, and what it must not."""

import asyncio
import os
import stat
import time

import pytest
from structlog.testing import capture_logs

from gateway.access.database import Database
from gateway.access.keys.key import Allowance
from gateway.access.keys.snapshot import KeySnapshot
from gateway.access.keys.snapshot_file import FILE_NAME, MAGIC, SEAL_BYTES, UNFINISHED, Snapshot, SnapshotFile, UnusableSnapshot
from gateway.access.keys.snapshot_writer import SnapshotWriter
from gateway.access.keys.store import KeyStore
from gateway.config import AuthSettings
from gateway.errors import ConfigurationError, InvalidKey, KeyStoreUnavailable, StoreUnavailable
from gateway.testing.fakes import FakeClock
from gateway.tests.access.conftest import BY, add, opened, settings_of

pytestmark = pytest.mark.timeout(60)
IDENTITY = "postgresql+psycopg://gateway@db/gateway"
MAX_AGE_SECONDS = 600


@pytest.fixture
def file(tmp_path):
    return SnapshotFile(tmp_path / "data", IDENTITY)


def read(file, now=0.0):
    return file.read(now=now, max_age_seconds=MAX_AGE_SECONDS)


def test_all_a_look_up_needs_comes_back_and_no_key_is_in_it(store, file):
    text, _ = add(store)
    policy = {"models": ["a*", "b"], "tokens_per_minute": 60, "token_budget": 7, "budget_period": "day", "is_admin": True}
    limited, key = add(store, expires_at="2999-01-01T00:00:00Z", **policy)
    stored = opened(store).stored
    file.write(Snapshot(stored, 5.0))
    found = read(file)
    assert found.keys == stored
    assert found.read_at == 5.0
    assert found.keys[key.public_id].caller.allowance == Allowance(tokens_per_minute=60, token_budget=7, budget_period="day")
    content = file.path.read_bytes()
    for secret in (text, limited):
        assert secret.rpartition("-")[2].encode() not in content


def test_many_keys_come_back(file):
    from gateway.access.keys.cached_key import CachedKey
    from gateway.access.keys.key import Caller

    many = {f"k{number}": CachedKey(Caller(f"k{number}"), os.urandom(32)) for number in range(1234)}
    file.write(Snapshot(many, 0.0))
    assert read(file).keys == many


def test_it_is_for_its_owner_alone_and_replaced_whole(file):
    mask = os.umask(0)
    try:
        file.write(Snapshot({}, 1.0))
    finally:
        os.umask(mask)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    before = file.path.stat().st_ino
    file.write(Snapshot({}, 2.0))
    assert file.path.stat().st_ino != before
    assert [path.name for path in file.path.parent.iterdir()] == [FILE_NAME]


def test_what_a_killed_process_left_unfinished_is_cleared_away(file):
    file.path.parent.mkdir()
    old, new = (file.path.parent / f"{UNFINISHED}{name}" for name in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    file.write(Snapshot({}, 1.0))
    assert not old.exists()
    assert new.exists()


def test_where_there_is_none_there_is_none(file):
    assert read(file) is None


def test_a_file_of_any_length_and_any_changed_byte_is_refused(store, file):
    for _ in range(2):
        add(store)
    file.write(Snapshot(opened(store).stored, 0.0))
    whole = file.path.read_bytes()
    for length in range(len(whole)):
        file.path.write_bytes(whole[:length])
        with pytest.raises(UnusableSnapshot, match=r"^it is "):
            read(file)
    for place in range(len(whole)):
        file.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UnusableSnapshot, match=r"^it is "):
            read(file)
    file.path.write_bytes(whole)
    assert len(read(file).keys) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no snapshot of keys"),
        (MAGIC.replace(b"1", b"2") + b"{}\n" + bytes(SEAL_BYTES), "another version"),
        (MAGIC + b"{}\n" + bytes(SEAL_BYTES), "damaged"),
        (b"SQLite format 3\0", "no snapshot of keys"),
    ],
)
def test_what_is_none_is_refused(file, content, reason):
    file.path.parent.mkdir()
    file.path.write_bytes(content)
    with pytest.raises(UnusableSnapshot, match=reason):
        read(file)


def test_a_folder_in_its_place_is_refused(file):
    file.path.mkdir(parents=True)
    with pytest.raises(UnusableSnapshot, match="cannot be read"):
        read(file)


def test_another_stores_is_refused(file):
    file.write(Snapshot({}, 0.0))
    with pytest.raises(UnusableSnapshot, match="of another store"):
        read(SnapshotFile(file.path.parent, IDENTITY.replace("db", "db2")))


def test_one_that_is_too_old_or_from_a_time_to_come_is_refused(file):
    file.write(Snapshot({}, 1000.0))
    assert read(file, now=1000.0 + MAX_AGE_SECONDS) is not None
    with pytest.raises(UnusableSnapshot, match="at most 600 s are believed"):
        read(file, now=1000.1 + MAX_AGE_SECONDS)
    assert read(file, now=950.0) is not None  # clocks differ
    with pytest.raises(UnusableSnapshot, match="time to come"):
        read(file, now=900.0)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("postgresql://u:a@h/d", "postgresql://u:b@h/d?sslmode=require", True),
        ("postgresql://u@h/d", "postgresql://u@h2/d", False),
        ("postgresql://u@h/d", "postgresql://u@h/d2", False),
        ("postgresql://u@h/d", "postgresql://u@h:6432/d", False),
        ("postgresql://u@/d?host=h", "postgresql://u@/d?host=h2", False),
    ],
)
def test_a_stores_identity_is_where_it_is_and_not_its_password(one, other, is_same, tmp_path):
    first, second = (Database(settings_of(url, tmp_path)).identity for url in (one, other))
    assert (first == second) is is_same
    assert ":a@" not in first


# A keyring with a file, and a store that comes and goes


@pytest.fixture
def url(postgres):
    return postgres.new_database()


class Starts:
    """Keyrings as processes have them, one after another: on one database and one file."""

    def __init__(self, url, folder):
        self.settings = settings_of(url, folder)
        self.clock, self.wall_clock = FakeClock(), FakeClock(time.time())
        self.file = SnapshotFile(folder, Database(self.settings).identity)

    def key_snapshot(self, url=None, **settings):
        store = KeyStore(Database(self.settings))
        return KeySnapshot(
            AuthSettings(**{"max_snapshot_age_seconds": MAX_AGE_SECONDS, **settings}),
            store,
            self.clock,
            self.wall_clock,
            file=self.file,
        )

    def pass_by(self, seconds):
        self.clock.advance(seconds)
        self.wall_clock.advance(seconds)


@pytest.fixture
def starts(url, tmp_path):
    return Starts(url, tmp_path)


async def written(key_snapshot):
    """Returns once the file has what the keyring knows."""
    async with asyncio.timeout(30):
        while key_snapshot.writer.keys is not key_snapshot.stored or key_snapshot.writer.background.is_running:
            await asyncio.sleep(0.02)


async def test_a_gateway_that_starts_without_its_store_serves_until_the_snapshot_is_too_old(starts, postgres):
    first = starts.key_snapshot()
    await first.start()
    text, _ = add(first.store)
    revoked, key = add(first.store)
    expiring, _ = add(first.store, expires_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(starts.wall_clock() + 100)))
    assert await first.renew()
    first.store.revoke(key.public_id, by=BY)
    assert await first.renew()
    await written(first)
    await first.close()
    starts.pass_by(300)
    postgres.kill()
    try:
        second = starts.key_snapshot()
        with capture_logs() as lines:
            await second.start()
        assert [line["event"] for line in lines] == ["key_snapshot_used", "key_store_unavailable"]
        assert second.caller(text)
        for refused in (revoked, expiring):
            with pytest.raises(InvalidKey):
                second.caller(refused)
        assert second.is_unavailable
        assert 300 <= second.age_seconds < 310
        starts.pass_by(MAX_AGE_SECONDS - 290)
        with pytest.raises(StoreUnavailable):
            second.caller(text)
        third = starts.key_snapshot()
        with capture_logs() as lines, pytest.raises(KeyStoreUnavailable):
            await third.start()
        assert [line["event"] for line in lines] == ["key_snapshot_refused"]
        await third.close()
    finally:
        postgres.start()
    async with asyncio.timeout(30):
        while second.is_unavailable:
            await asyncio.sleep(0.02)
    assert second.caller(text)
    new, _ = add(second.store)
    assert await second.renew()
    assert second.caller(new)
    await second.close()


async def test_a_snapshot_grows_old_as_its_file_says_whenever_it_is_read(starts, postgres):
    """A restart does not make it young again, nor does a file that was copied."""
    first = starts.key_snapshot()
    await first.start()
    await written_once(first)
    await first.close()
    for _ in range(2):
        starts.pass_by(250)
        os.utime(starts.file.path)
        postgres.kill()
        try:
            again = starts.key_snapshot()
            with capture_logs():
                await again.start()
            assert not again.writer.background.task  # what is read from the file is not written to it as if it were new
        finally:
            postgres.start()
        age = again.age_seconds
        await again.close()
    assert 500 <= age < 510


async def written_once(key_snapshot):
    async with asyncio.timeout(30):
        while key_snapshot.writer.background.task is None or key_snapshot.writer.background.is_running:
            await asyncio.sleep(0.02)


async def test_a_damaged_file_is_one_line_and_the_store_is_asked_as_ever(starts, postgres):
    starts.file.path.write_bytes(b"nonsense")
    key_snapshot = starts.key_snapshot()
    await key_snapshot.start()  # the store is there: nobody looks at the file
    await key_snapshot.close()
    starts.file.path.write_bytes(b"nonsense")
    postgres.kill()
    try:
        with capture_logs() as lines, pytest.raises(KeyStoreUnavailable):
            await starts.key_snapshot().start()
    finally:
        postgres.start()
    assert [line["event"] for line in lines] == ["key_snapshot_refused"]


async def test_configured_keys_that_cannot_be_read_stop_a_start_from_the_file_too(starts, postgres, tmp_path):
    first = starts.key_snapshot()
    await first.start()
    await written_once(first)
    await first.close()
    postgres.kill()
    try:
        with pytest.raises(ConfigurationError, match="keys_file"):
            await starts.key_snapshot(keys_file=str(tmp_path / "missing")).start()
    finally:
        postgres.start()


async def test_it_is_written_soon_after_a_change_and_before_it_grows_old(file):
    clock = FakeClock()
    writer = SnapshotWriter(file, max_age_seconds=MAX_AGE_SECONDS, clock=clock)

    async def offered(keys):
        before = file.path.stat().st_ino if file.path.exists() else None
        writer.offer(Snapshot(keys, 0.0))
        await writer.background.wait_ended()
        return file.path.stat().st_ino != before

    keys = {}
    assert await offered(keys)
    clock.advance(29)
    assert not await offered(keys)
    assert await offered({})  # another one: something has changed
    clock.advance(1.9)
    assert not await offered({})
    clock.advance(0.1)
    assert await offered(keys)
    clock.advance(30)
    assert await offered(keys)
    await writer.close()


async def test_a_disk_that_cannot_be_written_is_told_once_and_nothing_else_suffers(tmp_path):
    clock = FakeClock()
    (tmp_path / "data").write_text("no folder")
    writer = SnapshotWriter(SnapshotFile(tmp_path / "data", IDENTITY), max_age_seconds=MAX_AGE_SECONDS, clock=clock)
    with capture_logs() as lines:
        for _ in range(3):
            writer.offer(Snapshot({}, 0.0))
            await writer.background.wait_ended()
            clock.advance(60)
    assert [(line["event"], line["reason"]) for line in lines] == [("key_snapshot_not_written", "File exists")]
    await writer.close()
