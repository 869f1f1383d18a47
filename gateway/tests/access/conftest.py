"""A real store, and keys in it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gateway.access.database import Database
from gateway.access.keys.key import Key, new_key
from gateway.access.keys.policy import policy_of
from gateway.access.keys.snapshot import KeySnapshot
from gateway.access.keys.store import KeyStore
from gateway.config import AuthSettings, Secret, StoreSettings
from gateway.testing.fakes import FakeClock

BY = "cli:somebody"

settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[KeyStore]:
    """In a SQLite file, for what only files can suffer."""
    store = store_in(tmp_path / "some" / "data")
    store.open()
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], KeyStore]]:
    """Stores on one empty database, each as another process would have it, not yet open. All are closed at the end."""
    settings = StoreSettings(data_dir=str(tmp_path / "data"))
    if request.param == "postgres":
        settings = settings_of(request.getfixturevalue("postgres").new_database(), tmp_path)
    stores: list[KeyStore] = []

    def make() -> KeyStore:
        stores.append(KeyStore(Database(settings)))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(another: Callable[[], KeyStore]) -> KeyStore:
    store = another()
    store.open()
    return store


def settings_of(url: str, folder: Path) -> StoreSettings:
    (folder / "database-url").write_text(url)
    return StoreSettings(data_dir=str(folder), database_url=Secret(file=str(folder / "database-url")))


def store_in(folder: Path, *, busy_timeout_seconds: float = 5.0) -> KeyStore:
    """A store of its own, as another process would have it."""
    return KeyStore(Database(StoreSettings(data_dir=str(folder)), busy_timeout_seconds=busy_timeout_seconds))


def path_of(store: KeyStore) -> Path:
    assert store.database.path is not None
    return store.database.path


def add(store: KeyStore, **policy: object) -> tuple[str, Key]:
    text, key = new_key()
    store.add(key, policy_of(policy), by=BY)
    return text, key


def in_force(store: KeyStore) -> list[str]:
    """Their ids, as a gateway that starts would read them."""
    reading = store.read()
    assert reading is not None
    assert reading.is_whole
    return list(reading.keys)


def opened(
    store: KeyStore, clock: FakeClock | None = None, wall_clock: Callable[[], float] = time.time, **settings: object
) -> KeySnapshot:
    """A keyring that read its keys once and keeps no watch."""
    key_snapshot = KeySnapshot(AuthSettings(**settings), store, clock or FakeClock(), wall_clock)
    key_snapshot.refresh()
    return key_snapshot
