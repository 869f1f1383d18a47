"""Keys that the snapshot does not know: the store is asked once before they are refused, and not more than it likes."""

import asyncio

import pytest

from gateway.access.keys import snapshot as keyring_module
from gateway.access.keys.key import new_key
from gateway.access.keys.snapshot import KeySnapshot
from gateway.access.keys.unknown_keys import BURST, MAX_REMEMBERED, REMEMBERED_SECONDS, UnknownKeyLookup
from gateway.config import AuthSettings
from gateway.errors import InvalidKey
from gateway.testing.fakes import FakeClock
from gateway.tests.access.conftest import BY, add

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def key_snapshot(store, another, monkeypatch):
    """Of another process than `store`, and one that keeps no watch within the test. `num_asked` counts questions to the store."""
    monkeypatch.setattr(keyring_module, "REFRESH_SECONDS", 1000)
    key_snapshot = KeySnapshot(AuthSettings(), another())
    await key_snapshot.start()
    read, key_snapshot.num_asked = key_snapshot.store.read, 0

    def counted(seen=None):
        key_snapshot.num_asked += 1
        return read(seen)

    key_snapshot.store.read = counted
    yield key_snapshot
    await key_snapshot.close()


async def refused(key_snapshot, text):
    with pytest.raises(InvalidKey, match=r"^Incorrect API key provided: .*\*\*\*"):
        await key_snapshot.authenticate(text)


async def test_a_key_made_by_another_process_works_at_once(key_snapshot, store):
    text, key = add(store)
    assert (await key_snapshot.authenticate(text)).public_id == key.public_id
    await key_snapshot.authenticate(text)
    assert key_snapshot.num_asked == 1


async def test_a_key_rotated_by_another_process_works_at_once(key_snapshot, store):
    from datetime import timedelta

    _, key = add(store)
    assert await key_snapshot.renew()
    text, rotated = new_key(key.public_id)
    store.rotate(rotated, grace=timedelta(), by=BY)
    assert (await key_snapshot.authenticate(text)).public_id == key.public_id


async def test_one_that_is_nowhere_is_asked_for_once_and_remembered(key_snapshot):
    text, _ = new_key()
    for _ in range(3):
        await refused(key_snapshot, text)
    assert key_snapshot.num_asked == 1


async def test_a_wrong_secret_an_unknown_id_a_revoked_and_an_expired_key_all_ask_alike(key_snapshot, store):
    """Else the time it takes would tell a stranger which ids there are."""
    _, key = add(store)
    expired, _ = add(store, expires_at="2020-01-01T00:00:00Z")
    revoked, gone = add(store)
    store.revoke(gone.public_id, by=BY)
    assert await key_snapshot.renew()
    for number, text in enumerate((new_key()[0], new_key(key.public_id)[0], expired, revoked), start=2):
        await refused(key_snapshot, text)
        assert key_snapshot.num_asked == number


@pytest.mark.parametrize(
    "text", ["", "sk-gw-", "a-key-of-the-environment-unknown", "sk-gw-short-secret", "sk-gw-{}-é", "sk-proj-abcdef"]
)
async def test_what_is_not_of_a_keys_form_asks_nobody(key_snapshot, text):
    await refused(key_snapshot, text)
    assert key_snapshot.num_asked == 0


async def test_many_at_once_share_a_question(key_snapshot, store):
    texts = [add(store)[0] for _ in range(50)]
    await asyncio.gather(*(key_snapshot.authenticate(text) for text in texts))
    assert key_snapshot.num_asked <= 2
    await asyncio.gather(*(refused(key_snapshot, new_key()[0]) for _ in range(50)))
    assert key_snapshot.num_asked <= 4


async def test_while_the_store_is_unavailable_nobody_is_asked_for(key_snapshot):
    key_snapshot.outage.begin("it cannot be reached")
    await refused(key_snapshot, new_key()[0])
    assert key_snapshot.num_asked == 0


async def test_a_store_that_does_not_answer_costs_a_bounded_wait_and_is_asked_again_later(key_snapshot, monkeypatch):
    import threading

    from gateway.access.keys import unknown_keys

    monkeypatch.setattr(unknown_keys, "WAIT_SECONDS", 0.1)
    gate = threading.Event()
    read = key_snapshot.store.read
    key_snapshot.store.read = lambda seen=None: gate.wait() and read(seen)
    text, _ = new_key()
    await refused(key_snapshot, text)
    gate.set()
    key_snapshot.store.read = read
    await refused(key_snapshot, text)
    assert key_snapshot.num_asked >= 1


async def test_questions_are_spaced_out_for_all_together():
    clock = FakeClock()
    asked_at = []

    async def ask():
        unknown.begun()
        asked_at.append(clock())
        return True

    unknown = UnknownKeyLookup(ask, clock)
    for _ in range(BURST):
        assert await unknown.look()
    assert len(asked_at) == BURST
    late = asyncio.create_task(unknown.look())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asked_at) == BURST  # it waits for its turn
    assert unknown.coming is not None
    assert await late
    assert unknown.arrival - clock() == pytest.approx((BURST + 1) / 10)
    await unknown.close()


async def test_who_comes_before_a_question_begins_waits_for_it_and_who_comes_later_for_the_next():
    gate, begun = asyncio.Event(), []

    async def ask():
        unknown.begun()
        begun.append(1)
        await gate.wait()
        return True

    unknown = UnknownKeyLookup(ask, FakeClock())
    first = [asyncio.create_task(unknown.look()) for _ in range(3)]
    while not begun:
        await asyncio.sleep(0)
    second = [asyncio.create_task(unknown.look()) for _ in range(3)]
    while len(begun) < 2:
        await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*first, *second) == [True] * 6
    assert len(begun) == 2


async def test_what_is_remembered_is_bounded_and_short():
    clock = FakeClock()
    unknown = UnknownKeyLookup(never, clock)
    for number in range(MAX_REMEMBERED + 10):
        unknown.remember(number.to_bytes(32, "big"))
    assert len(unknown.remembered) == MAX_REMEMBERED
    latest = (MAX_REMEMBERED + 9).to_bytes(32, "big")
    assert unknown.is_remembered(latest)
    assert not unknown.is_remembered(bytes(32))
    clock.advance(REMEMBERED_SECONDS)
    assert not unknown.is_remembered(latest)


async def never():
    raise AssertionError
