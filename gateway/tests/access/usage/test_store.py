"""Usage at rest, in SQLite and PostgreSQL: sums of what several gateways write, by hour, day and month."""

import threading

import pytest

from gateway.access.usage.store import UsageStore, UsageTotals
from gateway.tests.access.conftest import add

NUM_WRITERS, NUM_TURNS = 4, 10


@pytest.fixture
def usage_store(store):
    return UsageStore(store.database)


def row(key="k", model="m", hour="2026-11-25T08", tokens=10):
    return UsageTotals(key, model, hour, 1, 2, tokens, 3)


def reported(usage_store, by="hour", since="2026-01-01T00", **more):
    return [
        (each.period, each.key, each.model, each.requests, each.tokens)
        for each in usage_store.report(by=by, since=since, limit=1000, **more)
    ]


def test_what_is_added_to_one_hour_is_summed(usage_store):
    usage_store.add([row(tokens=10), row(model="n", tokens=1)])
    usage_store.add([row(tokens=5)])
    assert usage_store.report(by="hour", since="2026-11-25T08", limit=9) == [
        UsageTotals("k", "m", "2026-11-25T08", 2, 4, 15, 6),
        UsageTotals("k", "n", "2026-11-25T08", 1, 2, 1, 3),
    ]


def test_hours_are_summed_to_days_and_months(usage_store):
    hours = ["2026-10-31T23", "2026-11-01T00", "2026-11-01T23", "2026-11-02T00"]
    usage_store.add([row(hour=hour, tokens=10**number) for number, hour in enumerate(hours)])
    assert [each[::4] for each in reported(usage_store, "day")] == [("2026-10-31", 1), ("2026-11-01", 110), ("2026-11-02", 1000)]
    assert [each[::4] for each in reported(usage_store, "month")] == [("2026-10", 1), ("2026-11", 1110)]
    assert [each[::4] for each in reported(usage_store, "day", since="2026-11-01T23")] == [
        ("2026-11-01", 100),
        ("2026-11-02", 1000),
    ]


def test_a_report_is_of_one_key_or_of_all_and_comes_in_pages(usage_store):
    usage_store.add([row(key) for key in "cab"])
    assert [each[1] for each in reported(usage_store)] == ["a", "b", "c"]
    assert [each[1] for each in reported(usage_store, key="b")] == ["b"]
    pages = [usage_store.report(by="day", since="2026", limit=2, offset=offset) for offset in (0, 2)]
    assert [[each.key for each in page] for page in pages] == [["a", "b"], ["c"]]


def test_numbers_may_be_large(usage_store):
    for _ in range(2):
        usage_store.add([row(tokens=2**61)])
    assert reported(usage_store, "month") == [("2026-11", "k", "m", 2, 2**62)]


def test_adding_tells_what_was_spent_by_everybody(usage_store, another):
    other = UsageStore(another().database)
    other.add([row(tokens=100), row("stranger", tokens=7)])
    spent = usage_store.add(
        [row(tokens=1), row(model="n", hour="2026-11-24T08", tokens=20)], keys=["k"], periods=["2026-11", "2026-11-25"]
    )
    assert spent == {("k", "2026-11"): 121, ("k", "2026-11-25"): 101}
    assert usage_store.add([], keys=["stranger", "nobody"], periods=["2026-11"]) == {("stranger", "2026-11"): 7}


def test_many_keys_are_asked_for_at_once(usage_store):
    keys = [f"key-{number}" for number in range(1201)]
    spent = usage_store.add([row(key, tokens=1) for key in keys], keys=keys, periods=["2026-11"])
    assert spent == {(key, "2026-11"): 1 for key in keys}


def test_budgets_are_known_at_the_start_of_keys_that_have_one(store, usage_store):
    (_, with_budget), (_, without) = add(store, token_budget=5), add(store)
    usage_store.add([row(with_budget.public_id), row(without.public_id), row("env-12345678")])
    assert usage_store.budgets(["2026-11-25", "2026-11"]) == {
        (with_budget.public_id, "2026-11-25"): 10,
        (with_budget.public_id, "2026-11"): 10,
    }


def test_gateways_that_write_at_once_lose_nothing_and_do_not_wait_for_each_other_for_ever(usage_store, another):
    ledgers = [UsageStore(another().database) for _ in range(NUM_WRITERS)]
    errors = []

    def write(own, number):
        keys = "abcdefgh" if number % 2 else "hgfedcba"
        try:
            for _ in range(NUM_TURNS):
                own.add([row(key, tokens=1) for key in keys], keys=keys, periods=["2026-11"])
        except Exception as error:  # noqa: BLE001 - told in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=write, args=each) for each in zip(ledgers, range(NUM_WRITERS), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert [each[3:] for each in reported(usage_store, "month")] == [(NUM_WRITERS * NUM_TURNS, NUM_WRITERS * NUM_TURNS)] * 8


def test_what_is_old_is_deleted(usage_store):
    usage_store.add([row(hour=hour) for hour in ("2026-09-30T23", "2026-10-05T08", "2026-10-05T09", "2026-11-25T08")])
    assert usage_store.prune("2026-10-05T09") == 2
    assert [each[0] for each in reported(usage_store)] == ["2026-10-05T09", "2026-11-25T08"]
    assert usage_store.add([], keys=["k"], periods=["2026-09", "2026-10", "2026-11"]) == {
        ("k", "2026-10"): 20,
        ("k", "2026-11"): 10,
    }
