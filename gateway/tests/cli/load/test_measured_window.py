"""Which answers count, by numbers: no clock, no server."""

import pytest

from gateway.cli.load.measured_window import MeasurementWindow


def taken(window: MeasurementWindow, *answers: tuple[int, float]) -> list[bool]:
    return [window.takes(client, now) for client, now in answers]


def test_a_window_opens_with_an_answer_after_the_warm_up_that_is_not_counted():
    window = MeasurementWindow(num_clients=1, seconds=2, warmup_seconds=1)
    window.start(100)
    assert taken(window, (0, 100.5), (0, 101.5), (0, 102.5), (0, 103.5)) == [False, False, True, True]
    assert window.is_closed
    assert window.seconds == 2
    assert not window.takes(0, 104)


def test_without_a_warm_up_a_window_opens_with_the_first_requests():
    window = MeasurementWindow(num_clients=1, seconds=2, warmup_seconds=0)
    window.start(100)
    assert taken(window, (0, 101), (0, 102)) == [True, True]
    assert (window.is_closed, window.seconds) == (True, 2)


@pytest.mark.parametrize("seconds", [0.5, 1.5, 4.9, 5.0, 7.2])
@pytest.mark.parametrize("warmup_seconds", [0, 2.5])
def test_clients_that_are_answered_together_are_counted_at_their_real_speed(seconds, warmup_seconds):
    """Four answers a second, all at once: cut by the clock a window of 1.5 seconds would count 4 or 8."""
    window = MeasurementWindow(num_clients=4, seconds=seconds, warmup_seconds=warmup_seconds)
    window.start(0)
    num_taken, moment = 0, 0
    while not window.is_closed:
        moment += 1
        num_taken += sum(taken(window, *((client, moment) for client in range(4))))
    assert window.seconds >= seconds
    assert num_taken / window.seconds == 4


def test_a_window_waits_for_a_client_who_had_no_answer():
    window = MeasurementWindow(num_clients=2, seconds=1, warmup_seconds=0)
    window.start(0)
    taken(window, (0, 1), (0, 2), (0, 3), (0, 4))
    assert not window.is_closed
    assert taken(window, (1, 5), (0, 6)) == [True, True]
    assert (window.is_closed, window.seconds) == (True, 6)


def test_a_window_that_is_closed_early_lasted_until_then():
    window = MeasurementWindow(num_clients=2, seconds=10, warmup_seconds=0)
    window.start(0)
    window.takes(0, 1)
    assert window.seconds_until(2) == 2
    window.close(3)
    assert (window.is_closed, window.seconds) == (True, 3)
    window.close(4)
    assert window.seconds == 3


def test_a_window_that_never_opened_lasted_no_time():
    window = MeasurementWindow(num_clients=2, seconds=10, warmup_seconds=5)
    window.start(0)
    assert not window.takes(0, 1)
    window.close(2)
    assert (window.seconds, window.seconds_until(3)) == (0, 0)
