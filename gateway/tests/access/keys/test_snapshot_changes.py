"""Keys come, go, and cannot be read for a while: what a keyring notices, and for how long it believes what it knows."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from gateway.access.keys.key import Allowance, Caller, new_key
from gateway.access.keys.snapshot import KeySnapshot
from gateway.access.keys.store import KeyStore
from gateway.config import AuthSettings
from gateway.errors import ConfigurationError, GatewayError, InvalidKey, OperatorError, StoreUnavailable
from gateway.testing.fakes import FakeClock
from gateway.tests.access.conftest import BY, add, opened, path_of

ONE_KEY, ANOTHER_KEY = "a-key-of-the-file-of-keys", "another-key-of-that-file"
REVOKED_WITHIN_SECONDS = 2.0


def put_away(store: KeyStore) -> None:
    """What a reader of the store meets when its disk is gone."""
    store.close()
    path_of(store).rename(path_of(store).with_suffix(".away"))
    path_of(store).mkdir()


def bring_back(store: KeyStore) -> None:
    path_of(store).rmdir()
    path_of(store).with_suffix(".away").rename(path_of(store))


async def until(condition: Callable[[], bool], *, within_seconds: float) -> None:
    async with asyncio.timeout(within_seconds):
        while not condition():
            await asyncio.sleep(0.02)


def answer(key_snapshot: KeySnapshot, key: str) -> type[GatewayError] | None:
    """How a caller with this key fares: None is well."""
    try:
        key_snapshot.caller(key)
    except GatewayError as error:
        return type(error)
    return None


def test_keys_made_and_revoked_are_noticed_by_a_refresh(store):
    key_snapshot = opened(store)
    assert key_snapshot.is_empty
    text, key = add(store)
    with pytest.raises(InvalidKey):
        key_snapshot.caller(text)
    key_snapshot.refresh()
    assert key_snapshot.caller(text).public_id == key.public_id
    store.revoke(key.public_id, by=BY)
    key_snapshot.refresh()
    with pytest.raises(InvalidKey):
        key_snapshot.caller(text)


def test_a_changed_key_file_is_noticed_by_a_refresh(store, tmp_path):
    path = tmp_path / "keys"
    path.write_text(ONE_KEY)
    key_snapshot = opened(store, keys_file=str(path))
    path.write_text(ANOTHER_KEY)
    key_snapshot.refresh()
    assert key_snapshot.caller(ANOTHER_KEY)
    with pytest.raises(InvalidKey):
        key_snapshot.caller(ONE_KEY)


def test_a_key_file_that_went_away_is_told_and_the_known_keys_go_on(store, tmp_path):
    path = tmp_path / "keys"
    path.write_text(ONE_KEY)
    key_snapshot = opened(store, keys_file=str(path))
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"^auth\.keys_file: .* cannot be read: No such file or directory$"):
        key_snapshot.refresh()
    assert key_snapshot.caller(ONE_KEY)


def test_while_the_store_is_unavailable_the_known_keys_go_on_for_so_long_and_no_longer(file_store):
    clock = FakeClock()
    text, _ = add(file_store)
    key_snapshot = opened(file_store, clock, max_snapshot_age_seconds=60)
    put_away(file_store)
    clock.advance(60)
    with pytest.raises(OperatorError):
        key_snapshot.refresh()
    assert key_snapshot.caller(text)
    clock.advance(0.001)
    for key in (text, "a-wrong-key-of-some-length"):
        with pytest.raises(StoreUnavailable) as caught:
            key_snapshot.caller(key)
        assert (caught.value.status, caught.value.code) == (503, "store_unavailable")
    bring_back(file_store)
    key_snapshot.refresh()
    assert key_snapshot.caller(text)


def test_a_refresh_without_changes_renews_the_snapshots_age(store):
    clock = FakeClock()
    text, _ = add(store)
    key_snapshot = opened(store, clock, max_snapshot_age_seconds=60)
    for _ in range(3):
        clock.advance(50)
        key_snapshot.refresh()
        assert key_snapshot.caller(text)


async def test_the_watch_notices_a_revocation_in_time(store, another):
    text, key = add(store)
    key_snapshot = KeySnapshot(AuthSettings(), another())
    await key_snapshot.start()
    assert answer(key_snapshot, text) is None
    store.revoke(key.public_id, by=BY)
    await until(lambda: answer(key_snapshot, text) is InvalidKey, within_seconds=REVOKED_WITHIN_SECONDS)
    await key_snapshot.close()


def test_changed_terms_are_noticed_by_a_refresh(store):
    text, key = add(store)
    key_snapshot = opened(store)
    store.amend(key.public_id, {"models": ["a*"], "tokens_per_minute": 60, "is_admin": True}, by=BY)
    assert key_snapshot.caller(text) == Caller(key.public_id)
    key_snapshot.refresh()
    assert key_snapshot.caller(text) == Caller(key.public_id, Allowance(tokens_per_minute=60), ("a*",), is_admin=True)


def test_a_refresh_replaces_what_changed_and_keeps_the_rest_as_it_is(store):
    kept, changed = add(store)[1].public_id, add(store)[1].public_id
    key_snapshot = opened(store)
    before = key_snapshot.stored
    store.amend(changed, {"token_budget": 1}, by=BY)
    key_snapshot.refresh()
    assert key_snapshot.stored is not before
    assert key_snapshot.stored[kept] is before[kept]
    assert before[changed].caller.allowance.token_budget is None  # a reader of the old snapshot is not disturbed
    assert key_snapshot.stored[changed].caller.allowance.token_budget == 1


def test_a_key_stops_at_the_second_it_expires_without_anybody_reading_anything(store):
    clock = FakeClock(datetime(2026, 11, 25, tzinfo=UTC).timestamp())
    text, _ = add(store, expires_at="2026-11-25T00:01:00Z")
    key_snapshot = opened(store, wall_clock=clock)
    clock.advance(59.9)
    assert answer(key_snapshot, text) is None
    clock.advance(0.1)
    assert answer(key_snapshot, text) is InvalidKey


def rotated(store: KeyStore, public_id: str, *, grace: timedelta) -> str:
    text, key = new_key(public_id)
    store.rotate(key, grace=grace, by=BY)
    return text


def test_after_a_rotation_both_secrets_are_one_caller_until_the_grace_is_over(store):
    clock = FakeClock(time.time())
    old, key = add(store, requests_per_minute=60)
    key_snapshot = opened(store, wall_clock=clock)
    new = rotated(store, key.public_id, grace=timedelta(hours=24))
    key_snapshot.refresh()
    assert key_snapshot.caller(old) == key_snapshot.caller(new)  # so limits and usage are one, and do not double
    assert key_snapshot.caller(new).public_id == key.public_id
    clock.advance(24 * 3600 - 60)
    assert answer(key_snapshot, old) is None
    clock.advance(120)
    assert (answer(key_snapshot, old), answer(key_snapshot, new)) == (InvalidKey, None)


def test_a_rotation_without_grace_ends_the_old_secret(store):
    old, key = add(store)
    key_snapshot = opened(store)
    new = rotated(store, key.public_id, grace=timedelta())
    key_snapshot.refresh()
    assert (answer(key_snapshot, old), answer(key_snapshot, new)) == (InvalidKey, None)


def test_only_the_last_secret_has_a_grace(store):
    first, key = add(store)
    second = rotated(store, key.public_id, grace=timedelta(days=1))
    third = rotated(store, key.public_id, grace=timedelta(days=1))
    key_snapshot = opened(store)
    assert [answer(key_snapshot, text) for text in (first, second, third)] == [InvalidKey, None, None]


def test_a_revoked_key_takes_both_its_secrets_with_it(store):
    old, key = add(store)
    new = rotated(store, key.public_id, grace=timedelta(days=1))
    key_snapshot = opened(store)
    store.revoke(key.public_id, by=BY)
    key_snapshot.refresh()
    assert [answer(key_snapshot, text) for text in (old, new)] == [InvalidKey] * 2


async def test_the_watch_outlives_a_store_that_is_unavailable(file_store):
    key_snapshot = KeySnapshot(AuthSettings(max_snapshot_age_seconds=0.8), file_store)
    text, _ = add(file_store)
    await key_snapshot.start()
    put_away(file_store)
    await until(lambda: answer(key_snapshot, text) is StoreUnavailable, within_seconds=10)
    assert key_snapshot.is_watching
    bring_back(file_store)
    await until(lambda: answer(key_snapshot, text) is None, within_seconds=10)
    await key_snapshot.close()


async def test_closing_ends_the_watch(store):
    key_snapshot = KeySnapshot(AuthSettings(), store)
    await key_snapshot.start()
    assert key_snapshot.is_watching
    await key_snapshot.close()
    assert not key_snapshot.is_watching
    assert [task for task in asyncio.all_tasks() if task.get_name() == "keys"] == []


async def test_a_keyring_that_cannot_read_its_keys_does_not_start(store, tmp_path):
    key_snapshot = KeySnapshot(AuthSettings(keys_file=str(tmp_path / "missing")), store)
    with pytest.raises(OperatorError, match=r"^auth\.keys_file: .*missing cannot be read: No such file or directory$"):
        await key_snapshot.start()
    assert not key_snapshot.is_watching
    await key_snapshot.close()
