"""Files are kept whole or not at all, seen by their owner alone, and counted."""

import asyncio
import os

import pytest
import sqlalchemy as sql

from gateway.access.schema import files_table
from gateway.errors import FileTooLarge, StorageQuotaExceeded, StorageUnavailable, UnknownFile
from gateway.files.table import FileTotals
from gateway.files.writer import LEASE_SECONDS
from gateway.tests.files.conftest import MB, OWNER, STRANGER, add, content_of, contents


def rows(store):
    with store.records.database.read() as connection:
        return connection.execute(files_table.select()).all()


async def test_a_file_is_read_as_it_was_written_from_any_byte(store):
    content = os.urandom(3 * MB + 17)
    file = await add(store, content, expires_after_seconds=3600)
    assert await content_of(store, file) == content
    assert await content_of(store, file, start=2 * MB + 5) == content[2 * MB + 5 :]
    assert file.num_bytes == len(content)
    assert file.expires_at == file.created_at + 3600
    assert await store.get(OWNER, file.id) == file


async def test_another_gateway_has_the_same_files(store, another):
    file = await add(store)
    assert await another().list(OWNER) == [file]
    assert await content_of(another(), file) == b"one\ntwo\n"


async def test_a_file_is_its_owners_alone(store):
    file = await add(store)
    assert await store.list(STRANGER) == []
    with pytest.raises(UnknownFile):
        await store.get(STRANGER, file.id)
    with pytest.raises(UnknownFile):
        await store.delete(STRANGER, file.id)
    with pytest.raises(UnknownFile):
        await store.list(STRANGER, after=file.id)
    assert await store.get(OWNER, file.id) == file


async def test_an_id_that_no_database_takes_is_an_unknown_one(store):
    for wrong in ("\x00", "file-\x00", "x" * 10_000, "文", "'; DROP TABLE files"):
        with pytest.raises(UnknownFile):
            await store.get(OWNER, wrong)
        with pytest.raises(UnknownFile):
            await store.delete(OWNER, wrong)
        with pytest.raises(UnknownFile):
            await store.list(OWNER, after=wrong)
        assert await store.list(OWNER, purpose=wrong) == []


async def test_a_block_that_fails_leaves_nothing(store):
    async def fail():
        async with await store.create(OWNER) as writer:
            await writer.write(b"x" * 2 * MB)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with await store.create(OWNER) as writer:
        await writer.write(b"never committed")
    assert contents(store) == []
    assert rows(store) == []


async def test_a_writer_that_is_cancelled_leaves_nothing(store):
    begun = asyncio.Event()

    async def write():
        async with await store.create(OWNER) as writer:
            await writer.write(b"x" * 2 * MB)
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert contents(store) == []
    assert rows(store) == []


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_list_is_read_page_by_page_even_behind_a_deleted_file(store, clock, order):
    files = []
    for number in range(5):
        files.append(await add(store, purpose="batch" if number % 2 else "user_data"))
        if number % 2:
            clock.advance(1)  # else made in the same moment: then by id
    files.sort(key=lambda file: (file.created_at, file.id), reverse=order == "desc")
    assert await store.list(OWNER, order=order) == files
    first = await store.list(OWNER, order=order, limit=2)
    await store.delete(OWNER, first[-1].id)
    assert first + await store.list(OWNER, order=order, after=first[-1].id) == files
    assert [file.purpose for file in await store.list(OWNER, purpose="user_data")].count("user_data") >= 2
    with pytest.raises(UnknownFile) as caught:
        await store.list(OWNER, after="file-never")
    assert caught.value.param == "after"


async def test_a_deleted_file_is_gone_for_everybody_and_its_content_too(store, another):
    file = await add(store)
    await store.delete(OWNER, file.id)
    assert contents(store) == []
    for each in (store, another()):
        with pytest.raises(UnknownFile):
            await each.get(OWNER, file.id)
    with pytest.raises(UnknownFile):
        await store.delete(OWNER, file.id)


async def test_a_reader_reads_on_while_the_file_is_deleted(store):
    content = os.urandom(2 * MB)
    file = await add(store, content)
    reading = store.read(file)
    got = await anext(reading)
    await store.delete(OWNER, file.id)
    async for chunk in reading:
        got += chunk
    assert got == content


async def test_a_file_larger_than_it_may_be_is_refused(store):
    with pytest.raises(FileTooLarge):
        async with await store.create(OWNER, max_bytes=10) as writer:
            await writer.write(b"x" * 11)
    assert contents(store) == []


async def test_the_files_of_a_key_together_have_a_quota(another):
    store = another(max_bytes_per_key=100)
    await add(store, b"x" * 60)
    with pytest.raises(StorageQuotaExceeded):
        await store.create(OWNER, num_bytes=41)
    with pytest.raises(StorageQuotaExceeded):
        await add(store, b"x" * 41)
    assert len(contents(store)) == 1
    await add(store, b"x" * 41, owner=STRANGER)
    await add(store, b"x" * 40)


async def test_what_is_being_uploaded_counts(another):
    store = another(max_bytes_per_key=100)
    async with await store.create(OWNER, num_bytes=60) as writer:
        with pytest.raises(StorageQuotaExceeded):
            await another(max_bytes_per_key=100).create(OWNER, num_bytes=60)
        await writer.write(b"x" * 60)
        await writer.commit(purpose="batch", filename="a")
    await add(store, b"x" * 40)


async def test_uploads_at_once_cannot_exceed_the_quota_together(another):
    stores = [another(max_bytes_per_key=100) for _ in range(4)]
    done = await asyncio.gather(*(add(store, b"x" * 30) for store in stores), return_exceptions=True)
    assert sum(isinstance(each, StorageQuotaExceeded) for each in done) == 1
    assert len(contents(stores[0])) == 3


async def test_outputs_count_and_are_never_refused(another):
    store = another(max_bytes_per_key=100)
    async with await store.create(OWNER, is_charged=False) as writer:
        await writer.write(b"x" * 200)
        await writer.commit(purpose="batch_output", filename="output.jsonl")
    with pytest.raises(StorageQuotaExceeded):
        await store.create(OWNER, num_bytes=1)


async def test_the_first_to_commit_an_id_wins(store, another):
    first = await add(store, b"first", file_id="file-known")
    assert await add(another(), b"second", file_id="file-known") == first
    assert await content_of(store, first) == b"first"
    assert len(contents(store)) == len(rows(store)) == 1


async def test_the_same_id_at_once_is_one_file(another):
    done = await asyncio.gather(*(add(another(), b"%d" % number, file_id="file-known") for number in range(4)))
    assert len(set(done)) == 1
    assert len(contents(another())) == 1


async def test_nobody_sees_a_file_after_its_time(store, clock):
    file = await add(store, expires_after_seconds=3600)
    clock.advance(3599)
    assert await store.list(OWNER) == [file]
    clock.advance(1)
    assert await store.list(OWNER) == []
    with pytest.raises(UnknownFile):
        await store.get(OWNER, file.id)
    with pytest.raises(UnknownFile):
        await content_of(store, file)


async def test_totals_are_of_all_keys(store):
    await add(store, b"123")
    await add(store, b"4567", owner=STRANGER)
    await store.delete(OWNER, (await add(store)).id)
    assert await store.records.run(store.records.table.totals) == FileTotals(2, 7)


async def test_a_writer_that_lives_is_not_given_up(store, clock):
    async with await store.create(OWNER) as writer:
        clock.advance(LEASE_SECONDS - 1)
        await writer.renew()
        clock.advance(LEASE_SECONDS - 1)
        assert await store.sweeper.sweep() == 0
        await writer.commit(purpose="batch", filename="a")


async def test_a_writer_that_was_given_up_cannot_commit(store, another, clock):
    async with await store.create(OWNER) as writer:
        await writer.write(b"slow")
        clock.advance(LEASE_SECONDS + 1)
        assert await another().sweeper.sweep() == 1
        with pytest.raises(StorageUnavailable):
            await writer.commit(purpose="batch", filename="a")
    assert contents(store) == []
    assert rows(store) == []


async def test_a_database_that_is_gone_is_a_503_and_leaves_nothing(store):
    async with await store.create(OWNER) as writer:
        await writer.write(b"content")
        with store.records.database.write() as connection:
            connection.execute(sql.text("ALTER TABLE files RENAME TO elsewhere"))
        with pytest.raises(StorageUnavailable):
            await writer.commit(purpose="batch", filename="a")
    assert contents(store) == []


async def test_a_content_is_on_disk_where_the_storage_has_it(store):
    file = await add(store)
    async with store.on_disk(file) as path:
        assert path.read_bytes() == b"one\ntwo\n"
    assert await content_of(store, file) == b"one\ntwo\n"
