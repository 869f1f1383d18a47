"""A real store, and keys in it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gateway.access.database import Database
from gateway.access.keyring import Keyring
from gateway.access.keys import Key, new_key
from gateway.access.store import KeyStore
from gateway.access.terms import terms_of
from gateway.config import AuthSettings, StoreSettings
from gateway.tests.fakes import FakeClock

BY = "cli:somebody"

settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    store = store_in(tmp_path / "some" / "data")
    store.open()
    yield store
    store.close()


def store_in(folder: Path, *, busy_timeout_seconds: float = 5.0) -> KeyStore:
    """A store of its own, as another process would have it."""
    return KeyStore(Database(StoreSettings(data_dir=str(folder)), busy_timeout_seconds=busy_timeout_seconds))


def path_of(store: KeyStore) -> Path:
    assert store.database.path is not None
    return store.database.path


def add(store: KeyStore, **terms: object) -> tuple[str, Key]:
    text, key = new_key()
    store.add(key, terms_of(terms), by=BY)
    return text, key


def in_force(store: KeyStore) -> list[str]:
    """Their ids, as a gateway that starts would read them."""
    reading = store.read()
    assert reading is not None
    assert reading.is_whole
    return list(reading.keys)


def opened(
    store: KeyStore | None, clock: FakeClock | None = None, wall_clock: Callable[[], float] = time.time, **settings: object
) -> Keyring:
    """A keyring that read its keys once and keeps no watch."""
    keyring = Keyring(AuthSettings(**settings), store, clock or FakeClock(), wall_clock)
    keyring.refresh()
    return keyring
