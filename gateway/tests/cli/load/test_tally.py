"""What was answered, counted in memory that does not grow."""

import pytest

from gateway.cli.load.peer import BenchResponse
from gateway.cli.load.tally import MAX_KINDS, BenchCounts, Latencies


def latencies(seconds):
    found = Latencies()
    for each in seconds:
        found.add(each)
    return found


@pytest.mark.parametrize("unit", [0.000_01, 0.001, 0.3, 20])
def test_a_percentile_is_what_so_many_percent_did_not_exceed(unit):
    found = latencies(unit * number for number in range(1000, 0, -1))
    for percent in (1, 50, 95, 99, 100):
        assert found.percentile(percent) == pytest.approx(unit * 10 * percent, rel=0.0051)
    assert found.slowest == unit * 1000


def test_percentiles_of_one_and_of_two():
    assert latencies([0.25]).percentile(50) == pytest.approx(0.25, rel=0.0051)
    assert latencies([0.25]).percentile(99) <= 0.25
    assert latencies([0.25, 0.5]).percentile(50) == pytest.approx(0.25, rel=0.0051)
    assert latencies([0.25, 0.5]).percentile(51) == pytest.approx(0.5, rel=0.0051)


def test_without_latencies_there_is_no_percentile():
    assert (latencies([]).percentile(50), latencies([]).slowest) == (None, None)
    assert latencies([0.0]).percentile(50) == 0


def test_a_million_latencies_take_the_room_of_a_few_thousand():
    found = latencies(number / 10_000 for number in range(1, 1_000_001))
    assert len(found.buckets) < 2000


def test_errors_are_counted_by_kind_and_add_nothing_to_the_speed():
    tally = BenchCounts()
    tally.add(BenchResponse(0.5, 30), num_inputs=3)
    for _ in range(2):
        tally.add(BenchResponse(0.0001, error="429 rate_limit_exceeded"), num_inputs=3)
    tally.add(BenchResponse(9.0, error="timeout"), num_inputs=3)
    assert (tally.num_requests, tally.num_inputs, tally.num_tokens) == (1, 3, 30)
    assert tally.errors == {"429 rate_limit_exceeded": 2, "timeout": 1}
    assert tally.latencies.slowest == 0.5


def test_a_server_with_ever_new_codes_fills_no_memory():
    tally = BenchCounts()
    for number in range(1000):
        tally.add(BenchResponse(0.1, error=f"500 code{number}"), num_inputs=1)
    tally.add(BenchResponse(0.1, error="500 code0"), num_inputs=1)
    assert len(tally.errors) == MAX_KINDS + 1
    assert tally.errors["500 code0"] == 2
    assert tally.errors["other"] == 1000 - MAX_KINDS
