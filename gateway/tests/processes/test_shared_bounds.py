"""Requests, bodies and connections are bounded over all fronts together."""

import pytest

from gateway.config import ServerSettings
from gateway.errors import Overloaded
from gateway.metrics import Metrics
from gateway.processes.shared_admission import SharedAdmission
from gateway.processes.shared_connections import SharedConnectionTable
from gateway.processes.totals import Totals


class Connection:
    """A connection of a client on a Unix socket."""

    peer = None

    def __init__(self):
        self.groups = ()
        self.is_closed = False

    def make_room(self):
        self.is_closed = True


@pytest.fixture
def totals():
    return Totals(2)


@pytest.fixture
def admissions(totals):
    return [SharedAdmission(max_requests=3, max_bytes=100, totals=totals, front=front) for front in range(2)]


@pytest.fixture
def tables(totals):
    asked = []
    settings = ServerSettings(max_connections=3)
    made = [
        SharedConnectionTable(
            settings, Metrics(), cut_slowest=lambda: False, totals=totals, front=front, ask_for_room=lambda: asked.append(1)
        )
        for front in range(2)
    ]
    made[0].asked = asked
    return made


def test_requests_are_admitted_up_to_the_bound_of_all(admissions):
    first, second = admissions
    with first.enter(), first.enter(), second.enter():
        for admission in admissions:
            with pytest.raises(Overloaded), admission.enter():
                raise AssertionError
        assert (first.num_requests, second.num_requests) == (2, 1)
    assert first.shared_requests.total == 0


def test_bytes_are_held_up_to_the_bound_of_all(admissions):
    first, second = admissions
    with first.enter() as one, second.enter() as other:
        one.hold(60)
        with pytest.raises(Overloaded):
            other.hold(41)
        other.hold(40)
    assert (first.shared_bytes.total, first.num_bytes, second.num_bytes_ever) == (0, 0, 40)


def test_connections_are_opened_up_to_the_bound_of_all(tables, totals):
    first, second = tables
    busy = [Connection() for _ in range(3)]
    assert [table.enter(each) for table, each in zip((first, first, second), busy, strict=True)] == [None] * 3
    assert totals.read("connections") == totals.read("waiting") == [2, 1]
    for table, each in zip((first, first, second), busy, strict=True):
        table.work(each)
    assert totals.read("waiting") == [0, 0]
    late = Connection()
    assert second.enter(late) == "server_overloaded"
    assert first.asked
    first.leave(busy[0])
    assert second.assign_slot(late) is None
    assert totals.read("connections") == [1, 2]
    second.leave(late)
    assert totals.read("connections") == [1, 1]


def test_a_new_connection_takes_the_place_of_one_that_waits_here(tables, totals):
    first, second = tables
    idle = Connection()
    assert [first.enter(Connection()), first.enter(Connection()), second.enter(idle), second.enter(Connection())] == [None] * 4
    assert idle.is_closed
    assert totals.read("connections") == [2, 1]
    assert not first.asked
