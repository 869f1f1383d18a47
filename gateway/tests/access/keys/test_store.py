"""Keys at rest, in a real SQLite file."""

import stat
from datetime import UTC, datetime, timedelta

import pytest

from gateway.access.database import FILE_NAME
from gateway.access.keys.audit import history
from gateway.access.keys.key import new_key
from gateway.access.keys.policy import FIELDS, InvalidPolicy, KeyPolicy, as_table
from gateway.access.keys.store import Revision
from gateway.errors import OperatorError, UnknownKey
from gateway.tests.access.conftest import BY, add, in_force, path_of, store_in


def test_a_new_store_is_empty_and_has_a_revision(store):
    assert list(store.all()) == in_force(store) == []
    assert not store.has_any()
    assert store.read().revision == Revision(1, 1, store.database.inode)


def test_keys_are_listed_oldest_first_with_name_and_time(store):
    before = datetime.now(UTC).replace(tzinfo=None)
    keys = [add(store, name=name)[1] for name in ("first", "zweiter 🦜", "")]
    stored = list(store.all())
    assert [each.key for each in stored] == keys
    assert [each.policy.name for each in stored] == ["first", "zweiter 🦜", ""]
    assert all(timedelta() <= each.created_at - before < timedelta(minutes=1) for each in stored)
    assert [each.revoked_at for each in stored] == [None] * 3


def test_a_list_is_read_page_by_page(store):
    ids = [add(store)[1].public_id for _ in range(7)]
    pages = [store.page(limit=3), store.page(limit=3, after=ids[2]), store.page(limit=3, after=ids[5])]
    assert [[each.key.public_id for each in page] for page in pages] == [ids[:3], ids[3:6], ids[6:]]
    with pytest.raises(UnknownKey):
        store.page(limit=3, after="no-such-id")


def test_every_term_comes_back_as_it_was_set(store):
    policy = {
        "name": "search",
        "models": ["all-*", "org/m"],
        "requests_per_minute": 60,
        "requests_burst": 5,
        "tokens_per_minute": 10**12,
        "tokens_burst": 7,
        "max_concurrent_requests": 3,
        "token_budget": 10**12,
        "budget_period": "day",
        "expires_at": "2030-01-02T03:04:05Z",
        "is_admin": True,
        "metadata": {"team": "höchste 🦜", "cost": ""},
    }
    assert set(policy) == set(FIELDS)
    _, key = add(store, **policy)
    assert as_table(store.get(key.public_id).policy) == policy
    _, plain = add(store)
    assert store.get(plain.public_id).policy == KeyPolicy()


def test_changes_leave_what_they_do_not_name(store):
    _, key = add(store, name="search", requests_per_minute=60, metadata={"team": "a"})
    changed = store.amend(key.public_id, {"requests_per_minute": None, "token_budget": 5}, by=BY)
    assert changed == store.get(key.public_id)
    assert changed.policy == KeyPolicy(name="search", token_budget=5, metadata={"team": "a"})


def test_terms_that_cannot_be_change_nothing(store):
    _, key = add(store, requests_per_minute=60)
    revision = store.read().revision
    for wrong in ({"requests_per_minute": 0}, {"tokens_burst": 5}, {"unknown": 1}):
        with pytest.raises(InvalidPolicy):
            store.amend(key.public_id, wrong, by=BY)
    assert store.read(revision) is None
    assert len(history(store.database, limit=9)) == 1


def test_a_revoked_key_is_listed_and_no_longer_in_force(store):
    (_, one), (_, other) = add(store), add(store)
    assert store.revoke(one.public_id, by=BY).state == "revoked"
    assert in_force(store) == [other.public_id]
    assert [each.revoked_at is None for each in store.all()] == [False, True]


def test_a_revoked_key_is_over_for_good(store):
    _, key = add(store)
    revoked = store.revoke(key.public_id, by=BY)
    for act in (
        lambda: store.revoke(key.public_id, by=BY),
        lambda: store.revoke("no-such-id", by=BY),
        lambda: store.amend(key.public_id, {"name": "again"}, by=BY),
        lambda: store.rotate(new_key(key.public_id)[1], grace=timedelta(hours=1), by=BY),
    ):
        with pytest.raises(UnknownKey):
            act()
    assert store.get(key.public_id) == revoked
    assert not store.has_any()


def test_an_expired_key_is_not_rotated_and_may_be_given_more_time(store):
    _, key = add(store, expires_at="2020-01-01T00:00:00Z")
    assert not store.has_any()
    with pytest.raises(UnknownKey):
        store.rotate(new_key(key.public_id)[1], grace=timedelta(), by=BY)
    assert store.amend(key.public_id, {"expires_at": None}, by=BY).state == "active"
    assert store.has_any()


def test_every_change_moves_the_revision_and_reading_does_not(store):
    seen = [store.read().revision]
    _, key = add(store)
    for change in (
        lambda: None,
        lambda: store.amend(key.public_id, {"name": "b"}, by=BY),
        lambda: store.rotate(new_key(key.public_id)[1], grace=timedelta(hours=1), by=BY),
        lambda: store.revoke(key.public_id, by=BY),
    ):
        change()
        seen.append(store.read().revision)
    assert [each.number for each in seen] == [each.counted for each in seen] == [1, 2, 3, 4, 5]
    list(store.all())
    in_force(store)
    assert store.read(seen[-1]) is None


def test_a_reader_is_given_what_changed_since_and_no_more(store):
    (_, one), (_, other), (_, third) = add(store), add(store), add(store)
    seen = store.read().revision
    store.revoke(one.public_id, by=BY)
    store.amend(other.public_id, {"models": ["m"]}, by=BY)
    changes = store.read(seen)
    assert (changes.is_whole, list(changes.keys), changes.removed) == (False, [other.public_id], [one.public_id])
    assert changes.keys[other.public_id].caller.models == ("m",)
    assert sorted(in_force(store)) == sorted([other.public_id, third.public_id])


def test_the_same_id_twice_is_refused_and_changes_nothing(store):
    _, key = add(store)
    revision = store.read().revision
    with pytest.raises(OperatorError):
        store.add(key, KeyPolicy(), by=BY)
    assert store.read(revision) is None
    assert len(list(store.all())) == 1
    assert len(history(store.database, limit=9)) == 1


def test_two_stores_on_one_database_see_each_others_changes(store, another):
    other = another()
    other.open()
    _, key = add(store)
    assert in_force(other) == [key.public_id]
    revision = store.read().revision
    assert other.read(revision) is None
    other.revoke(key.public_id, by=BY)
    assert store.read(revision).removed == [key.public_id]


def test_what_was_stored_is_there_after_opening_again(file_store):
    _, key = add(file_store)
    file_store.close()
    again = store_in(path_of(file_store).parent)
    again.open()
    assert in_force(again) == [key.public_id]
    again.close()


def test_its_owner_alone_may_read_the_files(file_store):
    add(file_store)
    for path in path_of(file_store).parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    assert stat.S_IMODE(path_of(file_store).parent.stat().st_mode) == 0o700


def test_a_keys_text_is_nowhere_in_the_files(file_store):
    text, key = add(file_store)
    kept = b"".join(path.read_bytes() for path in path_of(file_store).parent.iterdir())
    file_store.close()
    kept += b"".join(path.read_bytes() for path in path_of(file_store).parent.iterdir())
    assert key.digest in kept
    assert text.encode() not in kept
    assert text.rpartition("-")[2].encode() not in kept


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OperatorError, match=r"^the data folder .* cannot be written: [^\n]+$"):
        store_in(tmp_path / "file" / "data").open()


@pytest.mark.parametrize("content", [b"this is no database, " * 200, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_database_is_told_in_one_line(tmp_path, content):
    (tmp_path / FILE_NAME).write_bytes(content)
    store = store_in(tmp_path)
    with pytest.raises(OperatorError, match=r"^the key database .*gateway\.db cannot be used: [^\n]+$"):
        store.open()
    store.close()


def test_a_database_that_is_a_folder_is_told_in_one_line(tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(OperatorError, match=r"^the key database .* cannot be used: [^\n]+$"):
        store_in(tmp_path).open()
