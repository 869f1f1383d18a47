"""Stores that cannot be used: locked, read-only, truncated, replaced, killed. One clear line, no password, and it comes back."""

import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.access.database import Database
from gateway.config import Secret, StoreSettings
from gateway.errors import ConfigurationError, OperatorError
from gateway.tests.access.conftest import BY, add, in_force, opened, path_of, settings_of, store_in

BUSY_SECONDS = 0.2
ANYBODY = 65534


@contextmanager
def unprivileged():
    """Root may write what it may not: the rest is done as nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(ANYBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def opened_up(path):
    """Everybody may reach and read what is at `path`, and nobody may write it."""
    ours = [each for each in path.parents if each.stat().st_uid == os.getuid() and each != Path("/")]
    before = {each: each.stat().st_mode for each in (*ours, *path.parent.iterdir())}
    for each in before:
        each.chmod(0o555 if each.is_dir() else 0o444)
    try:
        yield
    finally:
        for each, mode in before.items():
            each.chmod(mode)


def test_a_locked_file_can_be_read_and_a_change_says_why_not(file_store):
    text, key = add(file_store)
    impatient = store_in(path_of(file_store).parent, busy_timeout_seconds=BUSY_SECONDS)
    key_snapshot = opened(impatient)
    other = sqlite3.connect(path_of(file_store), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperatorError, match=r"^the key database .*gateway\.db cannot be used: database is locked$"):
        impatient.revoke(key.public_id, by=BY)
    key_snapshot.refresh()
    assert key_snapshot.caller(text)
    assert in_force(impatient) == [key.public_id]
    other.execute("ROLLBACK")
    other.close()
    impatient.revoke(key.public_id, by=BY)
    impatient.close()


def test_a_file_that_may_not_be_written_can_be_read(file_store):
    text, _ = add(file_store)
    path = path_of(file_store)
    with opened_up(path):
        store = store_in(path.parent)
        with unprivileged():
            store.open()
            key_snapshot = opened(store)
            assert key_snapshot.caller(text)
            with pytest.raises(OperatorError, match=r"^the key database .* cannot be used: attempt to write a readonly database$"):
                add(store)
            store.close()
    add(file_store)
    assert len(in_force(file_store)) == 2


def test_a_truncated_file_is_told_and_the_known_keys_go_on(file_store):
    text, _ = add(file_store)
    key_snapshot = opened(file_store)
    for num_bytes in (5000, 1000, 0):
        file_store.close()
        os.truncate(path_of(file_store), num_bytes)
        with pytest.raises(OperatorError, match=r"^the key database .* cannot be used: [^\n]+$"):
            key_snapshot.refresh()
        assert key_snapshot.caller(text)


def test_a_file_that_went_away_is_not_made_again_empty(file_store):
    text, _ = add(file_store)
    key_snapshot = opened(file_store)
    path_of(file_store).unlink()
    with pytest.raises(OperatorError, match=r"cannot be used: unable to open database file$"):
        key_snapshot.refresh()
    assert key_snapshot.caller(text)
    assert not path_of(file_store).exists()


def test_a_backup_put_in_the_files_place_is_noticed_without_a_restart(file_store, tmp_path):
    text, _ = add(file_store)
    other = store_in(tmp_path / "backup")
    other.open()
    from_backup, _ = add(other)
    other.close()
    key_snapshot = opened(file_store)
    for leftover in path_of(file_store).parent.glob("gateway.db-*"):
        leftover.unlink()
    path_of(other).rename(path_of(file_store))
    key_snapshot.refresh()
    assert key_snapshot.caller(from_backup)
    assert text.split("-")[2] not in key_snapshot.stored


def test_a_killed_server_is_told_without_its_password_and_found_again(postgres, tmp_path):
    url = postgres.new_database()
    store = opened_store(url, tmp_path)
    text, key = add(store)
    key_snapshot = opened(store)
    postgres.kill()
    try:
        with pytest.raises(OperatorError, match=r"^the key database at 127\.0\.0\.1 cannot be used: [^\n]+$") as caught:
            key_snapshot.refresh()
        assert postgres.password not in str(caught.value)
        assert key_snapshot.caller(text)
    finally:
        postgres.start()
    key_snapshot.refresh()
    store.revoke(key.public_id, by=BY)
    store.close()


def opened_store(url, folder):
    from gateway.access.keys.store import KeyStore

    store = KeyStore(Database(settings_of(url, folder)))
    store.open()
    return store


def test_a_wrong_password_is_told_and_not_shown(postgres, tmp_path):
    wrong = postgres.new_database().replace(postgres.password, "not-the-password")
    with pytest.raises(OperatorError, match="password authentication failed") as caught:
        opened_store(wrong, tmp_path)
    assert "not-the-password" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://user@host/db", "sqlite:///file.db", "postgresql://h:port/d"])
def test_what_is_no_url_of_a_known_database_is_refused(url, monkeypatch):
    monkeypatch.setenv("SOME_URL", url)
    with pytest.raises(ConfigurationError, match=r"^store\.database_url: "):
        Database(StoreSettings(database_url=Secret(env="SOME_URL")))
