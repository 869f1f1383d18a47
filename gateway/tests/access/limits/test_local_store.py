"""Meters of one process: all or nothing, places, what is given back, and how many callers are remembered."""

import pytest

from gateway.access.limits import local_store as module
from gateway.access.limits.gcra import SECOND, Rate, RateLimits, tokens_rate
from gateway.access.limits.local_store import Cost, LocalRateLimitStore
from gateway.testing.fakes import FakeClock

LIMITS = RateLimits(Rate(600, 100), Rate(6000, 1000), max_concurrent_requests=2)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def meters(clock):
    return LocalRateLimitStore(clock)


async def test_a_request_refused_by_one_meter_is_charged_to_none(meters):
    await meters.charge("a", LIMITS, 1000)
    state = await meters.enter("a", LIMITS, "v", min_tokens=1)
    assert (state.refused, state.wait) == ("tokens", SECOND // 100)
    assert LIMITS.requests.remaining(state.requests_debt) == 100
    assert (await meters.enter("a", LIMITS, "v", min_tokens=0)).refused is None


async def test_the_longer_wait_is_told(meters):
    limits = RateLimits(Rate(60, 1), Rate(60, 10))
    await meters.enter("a", limits, "v", min_tokens=0)
    await meters.charge("a", limits, 10)
    assert (await meters.enter("a", limits, "v", min_tokens=5)).refused == "tokens"
    assert (await meters.enter("a", limits, "v", min_tokens=5)).wait == 5 * SECOND
    assert (await meters.enter("a", limits, "v", min_tokens=0)).refused == "requests"


async def test_so_many_run_at_once_and_one_more_is_not_charged(meters):
    for lease in ("v1", "v2"):
        assert (await meters.enter("a", LIMITS, lease, min_tokens=0)).refused is None
    state = await meters.enter("a", LIMITS, "v3", min_tokens=0)
    assert (state.refused, LIMITS.requests.remaining(state.requests_debt)) == ("concurrency", 98)
    assert (await meters.enter("b", LIMITS, "v3", min_tokens=0)).refused is None
    meters.leave("a", LIMITS, "v1", Cost())
    assert (await meters.enter("a", LIMITS, "v3", min_tokens=0)).refused is None


async def test_what_is_given_back_lifts_nobody_above_a_full_burst(meters, clock):
    await meters.enter("a", LIMITS, "v", min_tokens=0)
    await meters.charge("a", LIMITS, 500)
    clock.advance(4)  # 400 of them have come back by themselves
    meters.leave("a", LIMITS, "v", Cost(1, 500))
    state = await meters.charge("a", LIMITS, 0)
    assert (state.requests_debt, state.tokens_debt) == (0, 0)
    assert (await meters.charge("a", LIMITS, 1001)).refused == "tokens"


async def test_time_gives_back_exactly(meters, clock):
    await meters.charge("a", LIMITS, 1000)
    clock.advance(0.5)
    assert LIMITS.tokens.remaining((await meters.charge("a", LIMITS, 0)).tokens_debt) == 50
    assert (await meters.charge("a", LIMITS, 51)).wait == 10_000
    assert (await meters.charge("a", LIMITS, 50)).refused is None


async def test_remembered_callers_are_bounded(meters):
    for number in range(module.MAX_METERS + 10):
        await meters.charge(str(number), LIMITS, 1)
    assert len(meters.meters) == module.MAX_METERS
    assert "0" not in meters.meters
    meters.leave("0", LIMITS, "v", Cost())  # one that was forgotten in the middle of a visit
    assert meters.meters["0"].num_running == 0


async def test_who_may_send_more_than_the_burst_is_not_turned_away_at_the_door(meters, clock):
    limits = RateLimits(tokens=tokens_rate(1_000_000, None))
    assert (await meters.charge("a", limits, 500_000)).refused is None
    assert (await meters.enter("a", limits, "", min_tokens=1)).refused is None
    small = await meters.charge("a", limits, 1000)
    assert (small.refused, small.wait) == ("tokens", 12_060_000)
    assert (await meters.charge("a", limits, 500_000)).refused is None
    refused = await meters.enter("a", limits, "", min_tokens=1)
    assert (refused.refused, refused.wait) == ("tokens", 42_000_060)  # until the burst has room again
    clock.advance(42.00006)
    assert (await meters.enter("a", limits, "", min_tokens=1)).refused is None
    assert (await meters.charge("a", limits, 1)).refused is None
