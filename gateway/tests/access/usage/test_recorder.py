"""What keys used, from the request to the store; and budgets, which stop a key wherever it was spent."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from gateway import log
from gateway.access.database import Database
from gateway.access.keys.key import Allowance, Caller
from gateway.access.keys.store import KeyStore
from gateway.access.usage.recorder import UsageRecorder
from gateway.access.usage.store import UsageStore, UsageTotals
from gateway.config import UsageSettings
from gateway.errors import InsufficientQuota, KeyStoreUnavailable, OperatorError
from gateway.metrics import MAX_KEY_LABELS, Metrics
from gateway.testing.fakes import FakeClock
from gateway.testing.swallowing_proxy import SwallowingProxy
from gateway.tests.access.conftest import add, settings_of
from gateway.tests.access.keys.test_snapshot_changes import bring_back, put_away, until

BOUND_SECONDS = 10


@pytest.fixture
def clock():
    return FakeClock(datetime(2026, 11, 30, 22, 59, tzinfo=UTC).timestamp())


@pytest.fixture
def make(clock):
    """A gateway's bookkeeper; each test closes what it starts."""

    def build(store, flush_seconds=60.0, **more):
        settings = UsageSettings(flush_seconds=flush_seconds)
        return UsageRecorder(UsageStore(store.database), settings, metrics=Metrics(), wall_clock=clock, **more)

    return build


def note(recorder, caller, num_tokens=10, model="m"):
    recorder.record(caller, model=model, num_inputs=2, num_tokens=num_tokens, num_cached_tokens=3)


def reported(store, by="hour"):
    return UsageStore(store.database).report(by=by, since="2000", limit=1000)


def is_spent(recorder, caller):
    try:
        recorder.refuse_spent(caller)
    except InsufficientQuota:
        return True
    return False


def budgeted(store, **policy):
    _, key = add(store, **policy)
    return Caller(key.public_id, store.get(key.public_id).policy.allowance)


async def test_requests_are_counted_by_key_model_and_hour(store, make, clock):
    recorder = make(store)
    await recorder.start()
    for _ in range(2):
        note(recorder, Caller("a"))
    note(recorder, Caller("a"), model="n")
    note(recorder, Caller("env-12345678"))
    clock.advance(60)
    note(recorder, Caller("a"))
    assert reported(store) == []  # nothing was written on the way
    await recorder.flush()
    assert reported(store) == [
        UsageTotals("a", "m", "2026-11-30T22", 2, 4, 20, 6),
        UsageTotals("a", "n", "2026-11-30T22", 1, 2, 10, 3),
        UsageTotals("env-12345678", "m", "2026-11-30T22", 1, 2, 10, 3),
        UsageTotals("a", "m", "2026-11-30T23", 1, 2, 10, 3),
    ]
    await recorder.close()
    assert len(reported(store)) == 4


async def test_it_is_written_every_few_seconds_by_a_task_of_its_own(store, make):
    recorder = make(store, flush_seconds=0.1)
    await recorder.start()
    for number in (1, 2):
        note(recorder, Caller("a"))
        await until(
            lambda number=number: reported(store)[:1] and reported(store)[0].requests == number, within_seconds=BOUND_SECONDS
        )
    assert recorder.is_running
    await recorder.close()
    assert not recorder.is_running


async def test_what_is_left_is_written_at_the_stop(store, make):
    recorder = make(store)
    await recorder.start()
    note(recorder, Caller("a"))
    await recorder.close()
    assert [row.tokens for row in reported(store)] == [10]


@pytest.mark.parametrize(("num_failures", "num_written"), [(1, 1), (2, 0)])
async def test_the_write_at_the_stop_is_tried_twice(store, make, num_failures, num_written):
    recorder = make(store)
    await recorder.start()
    note(recorder, Caller("a"))
    add_rows, failures = recorder.usage_store.add, iter(range(num_failures))

    def failing(*args, **kwargs):
        if next(failures, None) is not None:
            raise KeyStoreUnavailable("it cannot be reached")
        return add_rows(*args, **kwargs)

    recorder.usage_store.add = failing
    with capture_logs():
        await recorder.close()
    assert len(reported(store)) == num_written


async def test_several_gateways_sum_rightly(store, another, make):
    bookkeepers = [make(store), make(another())]
    for recorder in bookkeepers:
        await recorder.start()
        note(recorder, Caller("a"))
    await asyncio.gather(*(recorder.close() for recorder in bookkeepers))
    assert [(row.requests, row.tokens) for row in reported(store)] == [(2, 20)]


async def test_a_budget_stops_a_key_and_says_when_it_is_renewed(store, make):
    caller = budgeted(store, token_budget=25, budget_period="day")
    recorder = make(store)
    await recorder.start()
    for _ in range(3):
        assert not is_spent(recorder, caller)
        note(recorder, caller)
    with pytest.raises(
        InsufficientQuota, match=r"^You exceeded your current quota: 25 tokens a day, .* 2026-12-01T00:00:00Z\."
    ) as caught:
        recorder.refuse_spent(caller)
    error = caught.value
    assert (error.status, error.type, error.code) == (429, "insufficient_quota", "insufficient_quota")
    assert error.headers() == {"x-should-retry": "false"}
    assert not is_spent(recorder, Caller("somebody-else"))
    await recorder.close()


@pytest.mark.parametrize(("period", "hours"), [("day", 1), ("month", 1), ("month", 31 * 24)])
async def test_a_budget_is_whole_again_in_its_next_period(store, make, clock, period, hours):
    caller = budgeted(store, token_budget=10, budget_period=period)
    recorder = make(store)
    await recorder.start()
    note(recorder, caller)
    await recorder.flush()
    assert is_spent(recorder, caller)
    clock.advance(59)
    assert is_spent(recorder, caller)
    clock.advance(1 + 3600 * hours)
    assert not is_spent(recorder, caller)
    await recorder.flush()
    assert not is_spent(recorder, caller)
    assert {place[1] for place in recorder.spent} <= set(recorder.periods())  # what is over is forgotten
    await recorder.close()


async def test_a_budget_spent_at_another_gateway_is_known_after_a_flush(store, another, make):
    caller = budgeted(store, token_budget=15)
    here, there = make(store), make(another())
    await here.start()
    await there.start()
    for _ in range(2):
        note(there, caller)
    await there.flush()
    assert not is_spent(here, caller)
    await here.flush()
    assert is_spent(here, caller)
    await here.close()
    await there.close()


async def test_a_gateway_that_starts_knows_what_was_spent(store, another, make):
    caller = budgeted(store, token_budget=10)
    first = make(store)
    await first.start()
    note(first, caller)
    await first.close()
    second = make(another())
    await second.start()
    assert is_spent(second, caller)
    await second.close()


async def test_a_budget_that_was_raised_lets_the_key_go_on(store, make):
    caller = budgeted(store, token_budget=10)
    recorder = make(store)
    await recorder.start()
    note(recorder, caller)
    assert is_spent(recorder, caller)
    assert not is_spent(recorder, Caller(caller.public_id, Allowance(token_budget=11)))
    await recorder.close()


async def test_what_a_key_used_before_it_had_a_budget_counts(store, make):
    caller = budgeted(store)
    recorder = make(store)
    await recorder.start()
    note(recorder, caller)
    with_budget = Caller(caller.public_id, Allowance(token_budget=10))
    recorder.refuse_spent(with_budget)  # it is not known yet
    await recorder.flush()
    assert is_spent(recorder, with_budget)
    await recorder.close()


async def test_what_is_counted_while_the_ledger_is_written_is_not_lost(store, make):
    caller = budgeted(store, token_budget=20)
    recorder = make(store)
    await recorder.start()
    note(recorder, caller)
    flush = asyncio.create_task(recorder.flush())
    await asyncio.sleep(0)  # it has begun, and its thread may still write
    note(recorder, caller)
    await flush
    assert is_spent(recorder, caller)
    await recorder.close()
    assert [row.tokens for row in reported(store)] == [20]


async def test_while_the_store_is_unavailable_usage_is_kept_and_written_once_it_is_back(file_store, make):
    recorder = make(file_store)
    await recorder.start()
    note(recorder, Caller("a"))
    put_away(file_store)
    for _ in range(3):
        with pytest.raises(OperatorError):
            await recorder.flush()
        note(recorder, Caller("a"))
    assert pending_rows(recorder) == 1
    bring_back(file_store)
    await recorder.flush()
    assert [(row.requests, row.tokens) for row in reported(file_store)] == [(4, 40)]
    assert pending_rows(recorder) == 0
    await recorder.close()


async def test_the_task_outlives_a_store_that_is_unavailable(file_store, make):
    recorder = make(file_store, flush_seconds=0.1)
    await recorder.start()
    put_away(file_store)
    note(recorder, Caller("a"))
    await until(lambda: pending_rows(recorder) == 1, within_seconds=BOUND_SECONDS)
    bring_back(file_store)
    await until(lambda: len(reported(file_store)) == 1, within_seconds=BOUND_SECONDS)
    assert recorder.is_running
    await recorder.close()


async def test_a_killed_server_costs_no_usage(postgres, make, tmp_path):
    from gateway.tests.access.keys.test_store_faults import opened_store

    store = opened_store(postgres.new_database(), tmp_path)
    recorder = make(store)
    await recorder.start()
    note(recorder, Caller("a"))
    postgres.kill()
    try:
        with pytest.raises(OperatorError):
            await recorder.flush()
    finally:
        postgres.start()
    await recorder.close()
    assert [row.tokens for row in reported(store)] == [10]
    store.close()


async def test_what_waits_is_bounded_and_what_is_given_up_is_counted(store, make):
    recorder = make(store, max_pending_rows=2)
    await recorder.start()
    for key in "abcab":
        note(recorder, Caller(key))
    assert len(recorder.pending) == 2
    assert recorder.metrics.registry.get_sample_value("gateway_usage_rows_lost_total") == 1
    await recorder.close()
    assert [(row.key, row.requests) for row in reported(store)] == [("a", 2), ("b", 2)]


async def test_a_stop_without_a_store_says_what_is_lost(file_store, make, capfd):
    log.configure(level="info", line_format="json")
    recorder = make(file_store)
    await recorder.start()
    note(recorder, Caller("a"))
    put_away(file_store)
    await recorder.close()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["usage_not_written", "usage_lost"]
    assert (lines[1]["rows"], lines[1]["tokens"]) == (1, 10)


async def test_old_usage_is_deleted_after_its_time(store, make, clock):
    recorder = make(store, flush_seconds=0.1)
    UsageStore(store.database).add([UsageTotals("a", "m", hour, 1, 1, 1, 0) for hour in ("2025-10-25T00", "2025-10-30T00")])
    await recorder.start()
    await until(lambda: [row.period for row in reported(store)] == ["2025-10-30T00"], within_seconds=BOUND_SECONDS)
    await recorder.close()


async def test_a_thousand_keys_have_a_label_and_the_rest_share_one(store, make):
    recorder = make(store)
    for number in range(MAX_KEY_LABELS + 100):
        note(recorder, Caller(f"key-{number}"), num_tokens=1)
        note(recorder, Caller("key-0"), num_tokens=1)
    value = recorder.metrics.registry.get_sample_value
    assert value("gateway_key_tokens_total", {"key": "key-0"}) == 1 + MAX_KEY_LABELS + 100
    assert value("gateway_key_tokens_total", {"key": "key-999"}) == 1
    assert value("gateway_key_tokens_total", {"key": "key-1000"}) is None
    assert value("gateway_key_tokens_total", {"key": "other"}) == 101
    recorder.worker.close()


def pending_rows(recorder):
    return recorder.metrics.registry.get_sample_value("gateway_usage_pending_rows")


async def test_what_was_committed_without_anybody_hearing_it_is_counted_once(postgres, make, tmp_path):
    """The acknowledgement is swallowed, before the server has the commit or after it: the same batch is sent again."""
    for words in (b"COMMIT", b"usage_writers SET"):
        with SwallowingProxy(postgres.port) as proxy:
            url = postgres.new_database().replace(f":{postgres.port}/", f":{proxy.port}/")
            (tmp_path / words.decode().split()[0]).mkdir()
            database = Database(settings_of(url, tmp_path / words.decode().split()[0]))
            store = KeyStore(database)
            store.open()
            database.silence_seconds = 2
            recorder = make(store)
            await recorder.start()
            note(recorder, Caller("a"))
            proxy.swallow_after = words
            with pytest.raises(KeyStoreUnavailable), capture_logs():
                await recorder.flush()
            note(recorder, Caller("a"))
            await recorder.flush()
            assert [(row.requests, row.tokens) for row in reported(store, by="month")] == [(2, 20)]
            await recorder.close()
            store.close()


async def test_a_batch_that_was_written_after_all_is_not_written_again(store, make):
    recorder = make(store)
    await recorder.start()
    note(recorder, Caller("a"))
    add_rows = recorder.usage_store.add

    def deaf(*args, **kwargs):
        add_rows(*args, **kwargs)
        raise KeyStoreUnavailable("the connection broke", is_unsure=True)

    recorder.usage_store.add = deaf
    with pytest.raises(KeyStoreUnavailable):
        await recorder.flush()
    note(recorder, Caller("a"))
    assert recorder.num_unwritten == 2
    recorder.usage_store.add = add_rows
    await recorder.flush()
    assert recorder.num_unwritten == 0
    assert [(row.requests, row.tokens) for row in reported(store, by="month")] == [(2, 20)]
    await recorder.close()


async def test_a_gateway_that_starts_without_its_store_learns_what_was_spent_once_it_is_back(store, another, make):
    caller = budgeted(store, token_budget=25)
    first = make(store)
    await first.start()
    note(first, caller)
    await first.close()
    second = make(another(), flush_seconds=0.1)
    budgets = second.usage_store.budgets

    def away(periods):
        raise KeyStoreUnavailable("it cannot be reached")

    second.usage_store.budgets = away
    await second.start(is_store_unavailable=True)
    note(second, caller)
    await until(lambda: second.is_unavailable, within_seconds=BOUND_SECONDS)
    assert not is_spent(second, caller)
    second.usage_store.budgets = budgets
    await until(lambda: second.is_informed, within_seconds=BOUND_SECONDS)
    note(second, caller)
    assert is_spent(second, caller)
    await second.close()
