"""The breaker, held against a slow and obviously right one on the same clock."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.testing.fakes import FakeClock
from gateway.upstream.breaker import Breaker, BreakerRules

RULES = BreakerRules(
    max_failures=3, failing_share=0.5, min_requests=6, window_seconds=10, open_seconds=2, max_open_seconds=8, num_probes=2
)


@dataclass
class Slow:
    """Keeps the whole history, and answers every question by going through it from the beginning."""

    rules: BreakerRules
    history: list[tuple[float, str]] = field(default_factory=list)

    def told(self, now, what):
        self.history.append((now, what))

    def replay(self, now):  # noqa: C901 - everything in one loop, so that it can be seen to be right
        """(state, seconds to wait, whether a probe is out)."""
        rules, opened, seconds, probes, is_out = self.rules, None, self.rules.open_seconds, 0, False
        seen: list[tuple[float, bool]] = []
        for at, what in self.history:
            if what == "enter":
                is_out = opened is not None
                continue
            is_out = False
            is_half_open = opened is not None and at >= opened + seconds
            if what == "left" or (opened is not None and not is_half_open):
                continue
            if opened is None:
                seen.append((at, what == "ok"))
                recent = [well for when, well in seen if when >= at - rules.window_seconds]
                in_a_row = 0
                for _, well in reversed(seen):
                    if well:
                        break
                    in_a_row += 1
                by_share = len(recent) >= rules.min_requests and recent.count(False) >= rules.failing_share * len(recent)
                if what == "failed" and (in_a_row >= rules.max_failures or by_share):
                    opened, seconds, probes, seen = at, rules.open_seconds, 0, []
            elif what == "ok":
                probes += 1
                if probes >= rules.num_probes:
                    opened, seconds = None, rules.open_seconds
            else:
                opened, seconds, probes = at, min(2 * seconds, rules.max_open_seconds), 0
        if opened is None:
            return "closed", 0.0, is_out
        return "half_open" if now >= opened + seconds else "open", max(0.0, opened + seconds - now), is_out


STEPS = st.lists(st.tuples(st.sampled_from(["ok", "failed", "left"]), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0])), max_size=60)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_it_does_what_the_slow_one_does(steps):
    clock = FakeClock()
    breaker, slow = Breaker(RULES, clock, draw=lambda: 1.0), Slow(RULES)
    for what, seconds in steps:
        clock.advance(seconds)
        state, wait_seconds, is_out = slow.replay(clock())
        assert (breaker.state, breaker.wait_seconds) == (state, pytest.approx(wait_seconds))
        assert breaker.admits == (state == "closed" or (state == "half_open" and not is_out))
        if breaker.admits:
            breaker.enter()
            slow.told(clock(), "enter")
        {"ok": breaker.on_success, "failed": breaker.on_failure, "left": breaker.on_cancelled}[what]()
        slow.told(clock(), what)


def fail(breaker, times):
    for _ in range(times):
        breaker.enter()
        breaker.on_failure()


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not():
    breaker = Breaker(RULES, FakeClock(), draw=lambda: 1.0)
    fail(breaker, 2)
    breaker.on_success()
    fail(breaker, 2)
    assert breaker.admits
    fail(breaker, 1)
    assert (breaker.state, breaker.admits, breaker.wait_seconds) == ("open", False, 2)


def test_a_failing_share_opens_it_though_none_come_in_a_row():
    clock = FakeClock()
    breaker = Breaker(RULES, clock, draw=lambda: 1.0)
    for _ in range(2):
        breaker.on_success()
        fail(breaker, 1)
    clock.advance(11)  # so these are forgotten
    for _ in range(2):
        breaker.on_success()
        fail(breaker, 1)
    assert breaker.admits
    breaker.on_success()
    fail(breaker, 1)
    assert not breaker.admits


def test_half_open_lets_one_by_at_a_time_and_closes_after_two():
    clock = FakeClock()
    breaker = Breaker(RULES, clock, draw=lambda: 1.0)
    fail(breaker, 3)
    clock.advance(2)
    assert breaker.admits
    breaker.enter()
    assert not breaker.admits
    breaker.on_cancelled()  # its client went away: the place is free again
    assert breaker.admits
    breaker.enter()
    breaker.on_success()
    assert breaker.state == "half_open"
    breaker.enter()
    breaker.on_success()
    assert breaker.state == "closed"


def test_each_failed_probe_doubles_the_time_up_to_a_bound():
    clock = FakeClock()
    breaker = Breaker(RULES, clock, draw=lambda: 1.0)
    fail(breaker, 3)
    waits = []
    for _ in range(4):
        waits.append(breaker.wait_seconds)
        clock.advance(breaker.wait_seconds)
        fail(breaker, 1)
    assert waits == [2, 4, 8, 8]


def test_answers_to_what_was_sent_before_it_opened_change_nothing():
    breaker = Breaker(RULES, FakeClock(), draw=lambda: 1.0)
    fail(breaker, 3)
    breaker.on_success()
    breaker.on_success()
    breaker.on_failure()
    assert (breaker.state, breaker.wait_seconds) == ("open", 2)
