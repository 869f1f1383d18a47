"""A file store on a real database and a real folder."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sql

from gateway.access.database import Database
from gateway.access.keys.store import KeyStore
from gateway.access.schema import files_table
from gateway.config import FileSettings, StoreSettings
from gateway.files.folder_storage import FolderStorage
from gateway.files.store import FileStore
from gateway.files.stored_file import StoredFile
from gateway.metrics import Metrics
from gateway.testing.fakes import FakeClock
from gateway.tests.access.conftest import settings_of

MB = 1024 * 1024
OWNER, STRANGER = "owner", "stranger"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_800_000_000.25)


@pytest.fixture(scope="session")
def postgres_settings(postgres, tmp_path_factory) -> StoreSettings:
    """One database for all tests: to make one takes a second."""
    settings = settings_of(postgres.new_database(), tmp_path_factory.mktemp("postgres"))
    keys = KeyStore(Database(settings))
    keys.open()
    keys.close()
    return settings


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSettings:
    if request.param == "sqlite":
        return StoreSettings(data_dir=str(tmp_path))
    settings = request.getfixturevalue("postgres_settings")
    database = Database(settings)
    with database.write() as connection:
        connection.execute(sql.text("ALTER TABLE IF EXISTS elsewhere RENAME TO files"))  # as a test left it
        connection.execute(files_table.delete())
    database.close()
    return msgspec.structs.replace(settings, data_dir=str(tmp_path))


@pytest.fixture
async def another(settings: StoreSettings, clock: FakeClock) -> AsyncIterator[Callable[..., FileStore]]:
    """Stores on one database and one folder, each as another gateway would have it, open. Their sweepers do not run."""
    stores: list[FileStore] = []
    if settings.database_url is None:
        keys = KeyStore(Database(settings))
        keys.open()
        keys.close()

    def make(**changed: object) -> FileStore:
        metrics = Metrics().files
        folder = FolderStorage(settings.folder / "files", metrics, min_free_bytes=0)
        stores.append(FileStore(FileSettings(**changed), folder, Database(settings), metrics=metrics, clock=clock))
        folder.folder.mkdir(exist_ok=True)
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


@pytest.fixture
def store(another: Callable[..., FileStore]) -> FileStore:
    return another()


async def add(
    store: FileStore, content: bytes = b"one\ntwo\n", *, owner: str = OWNER, purpose: str = "batch", **more: object
) -> StoredFile:
    async with await store.create(owner) as writer:
        await writer.write(content)
        return await writer.commit(purpose=purpose, filename="some.jsonl", **more)


async def content_of(store: FileStore, file: StoredFile, *, start: int = 0) -> bytes:
    return b"".join([chunk async for chunk in store.read(file, start=start)])


def contents(store: FileStore) -> list[Path]:
    """All that is in the folder, whole or not."""
    return sorted(path for path in store.storage.folder.rglob("*") if path.is_file())
