"""How many requests, and how many bytes of them, are held at once."""

import pytest

from gateway.access.admission import Admission
from gateway.errors import Overloaded


class Broke(Exception):
    pass


def held(admission: Admission) -> tuple[int, int]:
    return admission.num_requests, admission.num_bytes


def test_so_many_requests_enter_and_one_more_is_refused():
    admission = Admission(max_requests=2, max_bytes=10)
    with admission.enter(), admission.enter():
        with pytest.raises(Overloaded) as caught, admission.enter():
            pass
        assert admission.num_requests == 2
    assert (caught.value.status, caught.value.code) == (503, "server_overloaded")
    assert caught.value.headers()["Retry-After"] == "1"


def test_a_place_is_free_again_once_its_request_left():
    admission = Admission(max_requests=1, max_bytes=10)
    for _ in range(3):
        with admission.enter():
            assert admission.num_requests == 1
    assert held(admission) == (0, 0)


def test_so_many_bytes_are_held_by_all_together_and_one_more_is_refused():
    admission = Admission(max_requests=5, max_bytes=10)
    with admission.enter() as one, admission.enter() as other:
        one.hold(6)
        other.hold(4)
        with pytest.raises(Overloaded):
            one.hold(1)
        assert admission.num_bytes == 10
        one.hold(0)
    assert held(admission) == (0, 0)


def test_bytes_are_given_back_with_the_request_that_held_them():
    admission = Admission(max_requests=5, max_bytes=10)
    with admission.enter() as one:
        one.hold(3)
        with admission.enter() as other:
            other.hold(7)
        assert held(admission) == (1, 3)
        one.hold(7)
    assert held(admission) == (0, 0)


def test_a_request_that_fails_gives_its_place_and_its_bytes_back():
    admission = Admission(max_requests=1, max_bytes=10)

    def fail() -> None:
        with admission.enter() as permit:
            permit.hold(10)
            raise Broke

    for _ in range(2):
        with pytest.raises(Broke):
            fail()
    assert held(admission) == (0, 0)


def test_bytes_that_were_refused_are_not_counted():
    admission = Admission(max_requests=1, max_bytes=10)

    def overflow() -> None:
        with admission.enter() as permit:
            permit.hold(8)
            permit.hold(8)

    with pytest.raises(Overloaded):
        overflow()
    assert held(admission) == (0, 0)
