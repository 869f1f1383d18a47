"""Keys near the end of their budget or their life, as gauges: which, how many at most, and no longer than it is true."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.access.keys.cached_key import CachedKey
from gateway.access.keys.key import Allowance, Caller
from gateway.access.keys.snapshot import KeySnapshot
from gateway.access.usage.key_gauges import MAX_KEYS, KeyGauges, budgets_used, expiries
from gateway.access.usage.recorder import UsageRecorder
from gateway.access.usage.store import UsageStore
from gateway.config import AuthSettings, UsageSettings
from gateway.metrics import Metrics
from gateway.testing.fakes import FakeClock
from gateway.tests.access.conftest import BY, add

NOW = datetime(2026, 11, 30, 22, 59, tzinfo=UTC)
DAY = 86_400.0


@pytest.fixture
async def watched(store):
    clock = FakeClock(NOW.timestamp())
    key_snapshot = KeySnapshot(AuthSettings(), store, wall_clock=clock)
    recorder = UsageRecorder(UsageStore(store.database), UsageSettings(), metrics=Metrics(), wall_clock=clock)
    gauges = KeyGauges(key_snapshot, recorder, recorder.metrics, clock)
    await key_snapshot.start()
    await recorder.start()
    await gauges.start()
    yield gauges
    await gauges.close()
    await recorder.close()
    await key_snapshot.close()


def shown(gauges, name):
    return {labels["key"]: value for _, labels, value in gauges.metrics.samples([name])}


async def looked(gauges):
    await gauges.key_snapshot.worker.run(gauges.key_snapshot.refresh)
    await gauges.update()


async def test_a_budget_s_share_is_shown_and_renewed_with_its_period(watched, store):
    _, key = add(store, token_budget=100, budget_period="day")
    add(store)
    await looked(watched)
    assert shown(watched, "gateway_key_budget_used_ratio") == {key.public_id: 0}
    caller = Caller(key.public_id, Allowance(token_budget=100, budget_period="day"))
    watched.recorder.record(caller, model="m", num_inputs=1, num_tokens=85, num_cached_tokens=0)
    await looked(watched)
    assert shown(watched, "gateway_key_budget_used_ratio") == {key.public_id: 0.85}
    watched.wall_clock.advance(DAY)
    await looked(watched)
    assert shown(watched, "gateway_key_budget_used_ratio") == {key.public_id: 0}
    store.revoke(key.public_id, by=BY)
    await looked(watched)
    assert shown(watched, "gateway_key_budget_used_ratio") == {}


async def test_a_key_is_shown_for_the_month_before_it_expires(watched, store):
    soon, later = NOW + timedelta(days=5), NOW + timedelta(days=40)
    (_, first), (_, second) = add(store, expires_at=soon), add(store, expires_at=later)
    add(store)
    await looked(watched)
    assert shown(watched, "gateway_key_expires_timestamp_seconds") == {first.public_id: soon.timestamp()}
    watched.wall_clock.advance(20 * DAY)
    await looked(watched)
    assert shown(watched, "gateway_key_expires_timestamp_seconds") == {second.public_id: later.timestamp()}


async def test_a_watch_that_died_is_told(watched):
    assert watched.is_running
    watched.background.task.cancel()
    await watched.close()
    assert not watched.is_running


def test_of_many_keys_the_most_urgent_thousand_are_shown():
    now = NOW.timestamp()
    allowance = Allowance(token_budget=1000, budget_period="month")
    keys = {f"k{n}": CachedKey(Caller(f"k{n}", allowance), b"", expires_at=now + 1 + n) for n in range(3 * MAX_KEYS)}
    spent = {(f"k{n}", "2026-11"): n for n in range(3 * MAX_KEYS)}
    used, ends = budgets_used(keys, spent, now), expiries(keys, now)
    assert set(used) == {f"k{n}" for n in range(2 * MAX_KEYS, 3 * MAX_KEYS)}
    assert used["k2999"] == 2.999
    assert set(ends) == {f"k{n}" for n in range(MAX_KEYS)}
