"""Keys at rest, in a real SQLite file."""

import stat
from datetime import UTC, datetime, timedelta

import pytest

from gateway.access.store import FILE_NAME, KeyStore
from gateway.errors import OperatorError
from gateway.tests.access.conftest import add


def test_a_new_store_is_empty_and_has_a_revision(store):
    assert store.all() == store.in_force() == []
    assert store.revision() == 1


def test_keys_are_listed_oldest_first_with_name_and_time(store):
    before = datetime.now(UTC).replace(tzinfo=None)
    keys = [add(store, name)[1] for name in ("first", "zweiter 🦜", "")]
    stored = store.all()
    assert [each.key for each in stored] == keys
    assert [each.name for each in stored] == ["first", "zweiter 🦜", ""]
    assert all(timedelta() <= each.created_at - before < timedelta(minutes=1) for each in stored)
    assert [each.revoked_at for each in stored] == [None] * 3


def test_a_revoked_key_is_listed_and_no_longer_in_force(store):
    (_, one), (_, other) = add(store), add(store)
    assert store.revoke(one.public_id)
    assert store.in_force() == [other]
    assert [each.revoked_at is None for each in store.all()] == [False, True]


def test_a_key_can_be_revoked_once(store):
    _, key = add(store)
    assert store.revoke(key.public_id)
    revoked_at = store.all()[0].revoked_at
    assert not store.revoke(key.public_id)
    assert not store.revoke("no-such-id")
    assert store.all()[0].revoked_at == revoked_at


def test_every_change_moves_the_revision_and_reading_does_not(store):
    seen = [store.revision()]
    _, key = add(store)
    seen.append(store.revision())
    store.revoke(key.public_id)
    seen.append(store.revision())
    assert seen == sorted(set(seen))
    store.all()
    store.in_force()
    assert store.revision() == seen[-1]


def test_the_same_id_twice_is_refused_and_changes_nothing(store):
    _, key = add(store)
    revision = store.revision()
    with pytest.raises(OperatorError):
        store.add(key, name="again")
    assert store.revision() == revision
    assert len(store.all()) == 1


def test_two_stores_on_one_file_see_each_others_changes(store):
    other = KeyStore(store.path.parent)
    other.open()
    _, key = add(store)
    assert other.in_force() == [key]
    revision = store.revision()
    assert other.revision() == revision
    other.revoke(key.public_id)
    assert store.in_force() == []
    assert store.revision() > revision
    other.close()


def test_what_was_stored_is_there_after_opening_again(store):
    _, key = add(store)
    store.close()
    again = KeyStore(store.path.parent)
    again.open()
    assert again.in_force() == [key]
    again.close()


def test_its_owner_alone_may_read_the_files(store):
    add(store)
    for path in store.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_a_keys_text_is_nowhere_in_the_files(store):
    text, key = add(store)
    kept = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    store.close()
    kept += b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    assert key.digest in kept
    assert text.encode() not in kept
    assert text.rpartition("-")[2].encode() not in kept


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OperatorError, match=r"^the data folder .* cannot be written: [^\n]+$"):
        KeyStore(tmp_path / "file" / "data").open()


@pytest.mark.parametrize("content", [b"this is no database, " * 200, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_database_is_told_in_one_line(tmp_path, content):
    (tmp_path / FILE_NAME).write_bytes(content)
    store = KeyStore(tmp_path)
    with pytest.raises(OperatorError, match=r"^the key database .*gateway\.db cannot be used: [^\n]+$"):
        store.open()
    store.close()


def test_a_database_that_is_a_folder_is_told_in_one_line(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(OperatorError, match=r"^the key database .* cannot be used: [^\n]+$"):
        KeyStore(tmp_path).open()
