"""The one form of pauses between tries."""

import pytest

from gateway.backoff import Backoff

CEILINGS = [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def backoff(draw: float) -> Backoff:
    return Backoff(first_seconds=0.5, max_seconds=5.0, draw=lambda: draw)


@pytest.mark.parametrize(("draw", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_the_ceiling_doubles_up_to_the_most_and_half_of_it_is_chance(draw, share):
    assert [backoff(draw).pause_seconds(n) for n in range(1, 7)] == [share * ceiling for ceiling in CEILINGS]


@pytest.mark.parametrize("num_failures", [60, 1024, 10**9])
def test_however_often_it_failed_the_pause_is_bounded(num_failures):
    assert backoff(1.0).pause_seconds(num_failures) == 5.0


@pytest.mark.parametrize("num_failures", [0, -1])
def test_before_any_failure_it_is_the_first_pause(num_failures):
    assert backoff(1.0).pause_seconds(num_failures) == 0.5


def test_what_the_other_side_asked_for_is_kept_to_with_jitter_beyond():
    assert backoff(0.0).pause_seconds(1, at_least_seconds=3.0) == 3.0
    assert backoff(1.0).pause_seconds(1, at_least_seconds=3.0) == 3.25
    assert backoff(0.0).pause_seconds(4, at_least_seconds=1.0) == 2.0  # which its own pause is already


def test_no_two_come_back_in_step():
    assert len({Backoff(0.5, 5.0).pause_seconds(3) for _ in range(100)}) == 100
