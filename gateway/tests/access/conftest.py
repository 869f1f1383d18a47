"""A real store, and keys in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from gateway.access.keyring import Keyring
from gateway.access.keys import Key, new_key
from gateway.access.store import KeyStore
from gateway.config import AuthSettings
from gateway.tests.fakes import FakeClock

settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[KeyStore]:
    store = KeyStore(tmp_path / "some" / "data")
    store.open()
    yield store
    store.close()


def add(store: KeyStore, name: str = "name") -> tuple[str, Key]:
    text, key = new_key()
    store.add(key, name=name)
    return text, key


def opened(store: KeyStore | None, clock: FakeClock | None = None, **settings: object) -> Keyring:
    """A keyring that read its keys once and keeps no watch."""
    keyring = Keyring(AuthSettings(**settings), store, clock or FakeClock())
    keyring.refresh()
    return keyring
