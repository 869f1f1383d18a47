"""GCRA against a slow model that is obviously right, on a clock that also goes backwards."""

from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.access.keys.key import Allowance
from gateway.access.limits.gcra import MINUTE, SECOND, Rate, RateLimits, limits_of, tokens_rate
from gateway.access.limits.local_store import Cost, LocalRateLimitStore, Meter
from gateway.tests.access.limits.bucket import Bucket

RATES = st.builds(Rate, st.integers(1, 10_000), st.integers(1, 3_000), st.integers(0, 6_000))
STEPS = st.one_of(st.integers(0, 2000), st.integers(0, 5 * MINUTE), st.integers(-5 * MINUTE, -1))


class OneCaller(RuleBasedStateMachine):
    """Requests and tokens of one caller, charged, given back and waited for; after each step both tellings agree exactly."""

    @initialize(requests=RATES, tokens=RATES)
    def begin(self, requests: Rate, tokens: Rate) -> None:
        self.now = 0
        self.limits = RateLimits(requests, tokens)
        self.meters = LocalRateLimitStore(lambda: self.now / SECOND)
        self.meter = Meter()
        self.models = (Bucket(requests), Bucket(tokens))

    def look(self) -> Meter:
        """What LocalRateLimitStore does with a caller it knows, on this clock, which is in whole microseconds."""
        meter, elapsed = self.meter, self.now - self.meter.at
        meter.at = self.now
        meter.requests_debt = self.limits.requests.after(meter.requests_debt, elapsed)
        meter.tokens_debt = self.limits.tokens.after(meter.tokens_debt, elapsed)
        return meter

    @rule(num_requests=st.integers(0, 3), num_tokens=st.integers(0, 4_000))
    def charge(self, num_requests: int, num_tokens: int) -> None:
        costs = (num_requests, num_tokens)
        waits = [model.wait(self.now, cost) for model, cost in zip(self.models, costs, strict=True)]
        state = self.meters.take(self.look(), self.limits, Cost(*costs), num_tokens)
        assert (state.refused is None) == (max(waits) == 0)
        assert state.wait == max(waits)
        if state.refused:
            assert waits[("requests", "tokens").index(state.refused)] == state.wait
        else:
            for model, cost in zip(self.models, costs, strict=True):
                model.charge(self.now, cost)

    @rule(num_requests=st.integers(0, 3), num_tokens=st.integers(0, 4_000))
    def give_back(self, num_requests: int, num_tokens: int) -> None:
        meter = self.look()
        meter.requests_debt = self.limits.requests.charge(meter.requests_debt, -num_requests)
        meter.tokens_debt = self.limits.tokens.charge(meter.tokens_debt, -num_tokens)
        for model, cost in zip(self.models, (num_requests, num_tokens), strict=True):
            model.charge(self.now, -cost)

    @rule(step=STEPS)
    def pass_time(self, step: int) -> None:
        self.now += step

    @invariant()
    def both_agree(self) -> None:
        if not hasattr(self, "models"):
            return
        meter = self.look()
        for model, debt in zip(self.models, (meter.requests_debt, meter.tokens_debt), strict=True):
            level = model.level(self.now)
            assert Fraction(debt, MINUTE) == model.rate.burst - level
            assert model.rate.remaining(debt) == max(0, level // 1)
            assert model.rate.reset(debt) == model.until(model.rate.burst - level)


OneCaller.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_meters_and_a_slow_model_agree = OneCaller.TestCase


@given(rate=RATES, arrivals=st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(1, 500)), min_size=1, max_size=40))
@settings(deadline=None)
def test_no_window_of_time_lets_more_through_than_rate_and_the_largest_cost(rate, arrivals):
    debt, now, let_through = 0, 0, []
    for step, cost in arrivals:
        now, debt = now + step, rate.after(debt, step)
        if rate.wait(debt, cost) == 0:
            debt = rate.charge(debt, cost)
            let_through.append((now, cost))
    for first, (begin, _) in enumerate(let_through):
        for last in range(first, len(let_through)):
            total = sum(cost for _, cost in let_through[first : last + 1])
            assert total <= rate.max_cost + Fraction((let_through[last][0] - begin) * rate.per_minute, MINUTE)


@given(rate=RATES, debt=st.integers(0, 10**12), cost=st.integers(1, 6_000))
def test_after_the_wait_that_was_told_it_fits_and_a_microsecond_before_it_does_not(rate, debt, cost):
    debt = rate.after(debt, 0)
    assume(cost <= rate.max_cost)
    wait = rate.wait(debt, cost)
    assert rate.wait(rate.after(debt, wait), cost) == 0
    if wait:
        assert rate.wait(rate.after(debt, wait - 1), cost) > 0


def test_a_clock_set_back_locks_nobody_out_and_gives_nothing_away():
    rate = Rate(per_minute=60, burst=10)
    debt = rate.charge(0, 10)
    debt = rate.after(debt, -3600 * SECOND)
    assert (rate.remaining(debt), rate.wait(debt, 1)) == (0, SECOND)


def test_nothing_drifts_in_a_million_charges():
    """7 a minute is no whole number of microseconds each."""
    rate, debt = Rate(per_minute=7, burst=1), 0
    for _ in range(1_000_000):
        debt = rate.after(rate.charge(debt, 1), MINUTE // 7)
    assert rate.after(debt, 1_000_000 * (MINUTE % 7)) == 0


def test_a_smaller_limit_forgives_what_was_used_beyond_its_burst():
    debt = Rate(per_minute=600_000, burst=100_000).charge(0, 100_000)
    smaller = Rate(per_minute=60, burst=10)
    assert smaller.reset(smaller.after(debt, 0)) == 10 * SECOND


NONE = Allowance()
DEFAULT = Allowance(requests_per_minute=600, tokens_per_minute=6000, tokens_burst=3000, max_concurrent_requests=4)


@pytest.mark.parametrize(
    ("own", "default", "expected"),
    [
        (NONE, NONE, RateLimits()),
        (NONE, DEFAULT, RateLimits(Rate(600, 100), Rate(6000, 3000), 4)),
        (Allowance(requests_per_minute=60), DEFAULT, RateLimits(Rate(60, 10), Rate(6000, 3000), 4)),
        (Allowance(tokens_per_minute=600), DEFAULT, RateLimits(Rate(600, 100), Rate(600, 600), 4)),
        (Allowance(tokens_per_minute=600, tokens_burst=7), NONE, RateLimits(None, Rate(600, 7), None)),
        (Allowance(requests_per_minute=3, max_concurrent_requests=1), NONE, RateLimits(Rate(3, 1), None, 1)),
    ],
)
def test_a_keys_own_limits_go_before_those_of_every_key(own, default, expected):
    assert limits_of(own, default) == expected


@pytest.mark.parametrize(
    ("per_minute", "burst"),
    [(1, 1), (6000, 6000), (300_000, 300_000), (1_000_000, 300_000), (1_800_006, 300_001), (60_000_000, 10_000_000)],
)
def test_the_default_burst_of_tokens_is_a_sixth_or_300_000_or_the_whole_minute(per_minute, burst):
    rate = tokens_rate(per_minute, None)
    assert (rate.burst, rate.max_cost) == (burst, per_minute)
    assert (rate.wait(0, per_minute), rate.wait(0, per_minute + 1) > 0) == (0, True)


@pytest.mark.parametrize("burst", [1, 50_000, 2_000_000])
def test_a_burst_of_its_own_caps_a_single_request_too(burst):
    assert tokens_rate(1_000_000, burst).max_cost == burst


def test_a_request_above_the_burst_fits_while_it_and_the_debt_are_a_minutes_limit():
    rate = tokens_rate(1_000_000, None)
    debt = rate.charge(0, 400_000)
    assert (rate.remaining(debt), rate.wait(debt, 600_000)) == (0, 0)
    assert rate.wait(debt, 600_001) == MINUTE // 1_000_000
    assert rate.wait(debt, 1) == rate.wait(rate.charge(0, 300_000), 100_001)
    debt = rate.charge(debt, 600_000)
    assert (rate.remaining(debt), rate.reset(debt), rate.wait(debt, 300_000)) == (0, MINUTE, MINUTE)


def test_at_the_door_room_for_any_size_lets_in_and_the_wait_told_is_that_of_the_smallest():
    rate = tokens_rate(1_000_000, None)
    assert rate.wait_for_any(rate.charge(0, 699_999), 1) == 0
    assert rate.wait_for_any(rate.charge(0, 700_000), 1) == rate.wait(rate.charge(0, 700_000), 1) > 0
    small = Rate(6000, 1000)
    assert [small.wait_for_any(small.charge(0, used), 1) for used in (999, 1000)] == [0, SECOND // 100]
