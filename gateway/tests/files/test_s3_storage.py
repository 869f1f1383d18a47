"""The storage in a bucket, against a real server that speaks S3."""

import asyncio
import itertools
import os
from dataclasses import dataclass

import pytest

from gateway.access.database import Database
from gateway.config import FileSettings, Secret, StoreSettings
from gateway.errors import ConfigurationError, OperatorError, StorageUnavailable, UnknownFile
from gateway.files.s3_storage import PART_BYTES, build_s3_storage
from gateway.files.store import FileStore, build_file_store
from gateway.metrics import Metrics
from gateway.testing.s3_server import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, S3Server
from gateway.tests.files.conftest import MB, OWNER, add, content_of
from gateway.tests.files.test_store import rows

numbers = itertools.count()


@pytest.fixture(scope="module")
def server():
    server = S3Server()
    server.start()
    yield server
    server.close()


@dataclass
class Bucket:
    server: S3Server
    name: str

    def keys(self):
        return self.server.keys(self.name)

    def uploads(self):
        return self.server.uploads(self.name)


@pytest.fixture
def bucket(server):
    return Bucket(server, server.make_bucket(f"bucket-{next(numbers)}"))


@pytest.fixture
def s3_settings(bucket, tmp_path):
    (tmp_path / "id").write_text(ACCESS_KEY_ID)
    (tmp_path / "secret").write_text(SECRET_ACCESS_KEY)
    return {
        "s3_bucket": bucket.name, "s3_endpoint": bucket.server.url, "s3_region": REGION, "s3_prefix": "gateway/files",
        "s3_access_key_id": Secret(file=str(tmp_path / "id")), "s3_secret_access_key": Secret(file=str(tmp_path / "secret")),
    }  # fmt: skip


@pytest.fixture
async def store(s3_settings, tmp_path, clock):
    settings, metrics = FileSettings(**s3_settings), Metrics().files
    database = Database(StoreSettings(data_dir=str(tmp_path)))
    store = FileStore(settings, build_s3_storage(settings, metrics), database, metrics=metrics, clock=clock)
    await store.records.start()
    await store.storage.start()
    yield store
    await store.close()


@pytest.mark.parametrize("num_bytes", [1, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 12345])
async def test_a_file_is_read_as_it_was_written_from_any_byte(store, bucket, num_bytes):
    content = os.urandom(num_bytes)
    async with await store.create(OWNER) as writer:
        for start in range(0, num_bytes, 200_000):
            await writer.write(content[start : start + 200_000])
        assert bucket.keys() == []  # nobody sees a part
        file = await writer.commit(purpose="batch", filename="a")
    assert bucket.keys() == [f"gateway/files/{file.blob}"]
    assert await content_of(store, file) == content
    assert await content_of(store, file, start=num_bytes // 2) == content[num_bytes // 2 :]
    assert await content_of(store, file, start=num_bytes) == b""
    assert max([len(chunk) async for chunk in store.read(file)]) <= MB // 4


async def test_what_fails_or_is_cancelled_leaves_nothing(store, bucket):
    async with await store.create(OWNER) as writer:
        for _ in range(20):
            await writer.write(b"x" * MB)
    begun = asyncio.Event()

    async def write():
        async with await store.create(OWNER) as writer:
            for _ in range(10):
                await writer.write(b"x" * MB)
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert (bucket.keys(), bucket.uploads(), rows(store)) == ([], [], [])


async def test_a_file_that_is_deleted_or_expires_leaves_the_bucket(store, bucket, clock):
    file = await add(store)
    await store.delete(OWNER, file.id)
    with pytest.raises(UnknownFile):
        await store.get(OWNER, file.id)
    assert bucket.keys() == []
    await add(store, expires_after_seconds=3600)
    clock.advance(3600)
    await store.sweeper.sweep()
    assert bucket.keys() == []


async def test_a_content_that_somebody_removed_or_cut_is_no_half_file(store, bucket):
    file = await add(store, b"x" * 1000)
    key = f"gateway/files/{file.blob}"
    bucket.server.client.put_object(Bucket=bucket.name, Key=key, Body=b"x" * 999)
    with pytest.raises(StorageUnavailable):
        await content_of(store, file)
    bucket.server.client.delete_object(Bucket=bucket.name, Key=key)
    with pytest.raises(StorageUnavailable):
        await content_of(store, file)


async def test_a_bucket_that_refuses_stops_the_start_and_tells_no_secret(s3_settings, server, tmp_path):
    storage = build_s3_storage(FileSettings(**{**s3_settings, "s3_bucket": "no-such-bucket"}), Metrics().files)
    with pytest.raises(OperatorError, match=r"^files\.s3_bucket: the bucket refuses to be written: .*NoSuchBucket") as caught:
        await storage.start()
    assert "\n" not in str(caught.value)
    assert SECRET_ACCESS_KEY not in str(caught.value)
    assert storage.reason_of(ValueError(f"a {ACCESS_KEY_ID} and\n{SECRET_ACCESS_KEY}")) == "a *** and ***"


async def test_a_server_that_is_away_is_a_503_and_no_reason_not_to_start(s3_settings, monkeypatch, capsys):
    monkeypatch.setattr("gateway.files.s3_storage.MAX_RETRIES", 0)
    storage = build_s3_storage(FileSettings(**{**s3_settings, "s3_endpoint": "http://127.0.0.1:9"}), Metrics().files)
    await storage.start()
    writer = await storage.create("name")
    await writer.write(b"x")
    with pytest.raises(StorageUnavailable):
        await writer.commit()
    with pytest.raises(StorageUnavailable):
        await storage.delete("name")
    out = capsys.readouterr().out
    assert "file_storage_unreachable" in out
    assert ACCESS_KEY_ID not in out
    assert SECRET_ACCESS_KEY not in out


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"folder": "/x", "s3_bucket": "b"}, "exclude"),
        ({"s3_bucket": "b", "s3_access_key_id": Secret(env="A")}, "belong together"),
        ({"s3_endpoint": "http://x"}, "need s3_bucket"),
        ({"s3_bucket": "b", "s3_endpoint": "minio:9000"}, "begins with"),
        ({"s3_bucket": ""}, "is a name"),
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        FileSettings(**wrong)


def test_a_secret_that_is_not_there_is_named(s3_settings, tmp_path):
    settings = FileSettings(**{**s3_settings, "s3_secret_access_key": Secret(file=str(tmp_path / "nothing"))})
    with pytest.raises(ConfigurationError, match="secret file"):
        build_file_store(settings, StoreSettings(data_dir=str(tmp_path)), Metrics().files)


async def test_a_content_is_a_file_of_this_machine_for_as_long_as_it_is_needed(store):
    content = os.urandom(5 * MB)
    async with store.on_disk(await add(store, content)) as path:
        assert path.read_bytes() == content
    assert not path.exists()
