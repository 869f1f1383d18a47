"""The sweeper deletes what has expired, and what was left behind."""

import pytest

from gateway.access.database import Database
from gateway.access.keys.key import new_key
from gateway.access.keys.policy import policy_of
from gateway.access.keys.store import KeyStore
from gateway.errors import StorageUnavailable, UnknownFile
from gateway.files.table import TOMBSTONE_SECONDS
from gateway.files.writer import LEASE_SECONDS
from gateway.tests.files.conftest import MB, OWNER, add, content_of, contents
from gateway.tests.files.test_store import rows


async def test_what_has_expired_is_deleted_and_nothing_else(store, clock):
    expiring = [await add(store, expires_after_seconds=3600) for _ in range(3)]
    staying = await add(store)
    assert await store.sweeper.sweep() == 0
    clock.advance(3600)
    assert await store.sweeper.sweep() == len(expiring)
    assert await store.list(OWNER) == [staying]
    assert store.metrics.deleted.labels("expired")._value.get() == len(expiring)
    assert store.metrics.stored_bytes._value.get() == staying.num_bytes
    assert len(contents(store)) == len(rows(store)) == 1


async def test_what_a_dead_writer_left_is_deleted(store, another, clock):
    writer = await another().create(OWNER)
    await writer.write(b"x" * 2 * MB)
    writer.blob.file.close()  # as if its process was killed
    clock.advance(LEASE_SECONDS)
    assert await store.sweeper.sweep() == 1
    assert contents(store) == rows(store) == []


async def test_a_content_that_could_not_be_deleted_is_deleted_later(store):
    file = await add(store)
    path = store.storage.path_of(file.blob)
    path.unlink()
    path.mkdir()  # which `unlink` cannot remove
    await store.delete(OWNER, file.id)
    with pytest.raises(StorageUnavailable):
        await store.sweeper.sweep()
    path.rmdir()
    path.write_bytes(b"there again")
    assert await store.sweeper.sweep() == 1
    assert contents(store) == rows(store) == []


async def test_the_row_of_a_deleted_file_goes_after_a_while(store, clock):
    await store.delete(OWNER, (await add(store)).id)
    assert await store.sweeper.sweep() == 0
    assert len(rows(store)) == 1
    clock.advance(TOMBSTONE_SECONDS)
    await store.sweeper.sweep()
    assert rows(store) == []


async def test_the_files_of_a_revoked_key_are_deleted(store, settings):
    keys = KeyStore(Database(settings))
    _, key = new_key()
    keys.add(key, policy_of({}), by="cli:test")
    file, other = await add(store, owner=key.public_id), await add(store)
    assert await store.sweeper.sweep() == 0
    keys.revoke(key.public_id, by="cli:test")
    keys.close()
    assert await store.sweeper.sweep() == 1
    with pytest.raises(UnknownFile):
        await store.get(key.public_id, file.id)
    assert await content_of(store, other) == b"one\ntwo\n"


async def test_two_sweepers_at_once_delete_each_content_once(store, another, clock):
    for _ in range(5):
        await add(store, expires_after_seconds=3600)
    clock.advance(3600)
    assert await store.sweeper.sweep() + await another().sweeper.sweep() == 5
