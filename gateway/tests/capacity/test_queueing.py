"""The formulas against their textbooks, and against what is plainly true."""

import math

import pytest

from gateway.capacity.queueing import batch_waits, erlang_c, lognormal_exceeds, two_choices
from gateway.tests.capacity.mean_wait import mean_wait


def erlang_c_by_definition(servers: int, load: float) -> float:
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**number / math.factorial(number) for number in range(servers)) + last)


@pytest.mark.parametrize("servers", [1, 2, 5, 20])
@pytest.mark.parametrize("utilization", [0.1, 0.5, 0.9])
def test_erlang_c_is_that_of_the_definition(servers, utilization):
    load = servers * utilization
    assert erlang_c(servers, load) == pytest.approx(erlang_c_by_definition(servers, load), rel=1e-12)


def test_known_values():
    assert erlang_c(1, 0.7) == pytest.approx(0.7)  # one server is busy as much as there is work
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(5000, 4900) < 1  # no overflow
    assert erlang_c(3, 3) == 1
    assert mean_wait(1, 0.5, 2.0) == pytest.approx(2.0)  # M/M/1: rho / (1 - rho) services
    assert mean_wait(1, 0.5, 2.0, service_scv=0) == pytest.approx(1.0)  # M/D/1 waits half as long
    assert mean_wait(2, 2.0, 1.0) == math.inf


def test_a_text_alone_waits_for_no_others_and_half_an_overhead():
    texts, overheads = batch_waits(1e-9, 1.0, 0.2)
    assert texts == pytest.approx(0, abs=1e-8)
    assert overheads == pytest.approx(0.1)  # phi_1 is a bound for servers that are never idle


def test_more_servers_to_choose_from_never_make_a_wait_longer():
    for utilization in (0.0, 0.2, 0.6, 0.95):
        factors = [two_choices(utilization, servers) for servers in (1, 2, 4, 50)]
        assert factors[0] == 1
        assert factors == sorted(factors, reverse=True)


def test_lognormal_has_the_mean_it_was_given():
    step = 0.001
    area = sum(step * lognormal_exceeds((number + 0.5) * step, mean=0.5, cv=0.7) for number in range(20_000))
    assert area == pytest.approx(0.5, rel=1e-3)
    assert lognormal_exceeds(0.4, mean=0.5, cv=0) == 1
    assert lognormal_exceeds(0.6, mean=0.5, cv=0) == 0
