"""Requests, bodies and connections are bounded over all fronts together."""

import pytest

from gateway.config import ServerSettings
from gateway.errors import Overloaded
from gateway.metrics import Metrics
from gateway.processes.shared_admission import SharedAdmission
from gateway.processes.shared_connections import SharedConnections
from gateway.processes.totals import Totals
from gateway.server.connection_table import ConnectionTable


class Connection:
    """A connection of a client at an address, or without one on a Unix socket."""

    def __init__(self, peer=None):
        self.peer = peer
        self.groups = ()
        self.is_closed = self.is_held = False

    def make_room(self):
        self.is_closed = True

    def hold(self):
        self.is_held = True

    def resume(self):
        self.is_held = False


@pytest.fixture
def totals():
    return Totals(2)


@pytest.fixture
def admissions(totals):
    return [SharedAdmission(max_requests=3, max_bytes=100, totals=totals, front=front) for front in range(2)]


@pytest.fixture
def asked():
    """The addresses for whose connections room was asked, one after another."""
    return []


@pytest.fixture
def tables(totals, asked):
    settings = ServerSettings(max_connections=3, max_connections_per_address=2)
    return [
        ConnectionTable(settings, Metrics(), cut_slowest=lambda: False, counts=SharedConnections(totals, front, ask=asked.append))
        for front in range(2)
    ]


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


def entered(*tables, peer=None):
    """New connections, one in each of these tables."""
    made = [Connection(peer) for _ in tables]
    assert [table.enter(each) for table, each in zip(tables, made, strict=True)] == [None] * len(made)
    return made


def test_connections_are_opened_up_to_the_bound_of_all(tables, totals, asked):
    first, second = tables
    busy = entered(first, first, second)
    assert totals.read("connections") == [2, 1]
    for table, each in zip((first, first, second), busy, strict=True):
        table.work(each)
    late = Connection()
    assert second.enter(late) == "server_overloaded"
    assert (asked, late.is_held) == ([None], True)
    assert not first.make_room(None)  # all are busy there too
    second.resume_held()
    assert not late.is_held
    assert second.assign_slot(late) == "server_overloaded"
    first.leave(busy[0])
    assert second.assign_slot(late) is None
    assert totals.read("connections") == [1, 2]
    second.leave(late)
    second.leave(late)
    assert totals.read("connections") == [1, 1]


def test_a_new_connection_takes_the_place_of_one_that_waits_here(tables, totals, asked):
    first, second = tables
    *_, idle = entered(first, first, second)
    entered(second)
    assert (idle.is_closed, totals.read("connections"), asked) == (True, [2, 1], [])


def test_a_new_connection_takes_the_place_of_one_that_waits_in_another_process(tables, totals):
    first, second = tables
    longest, *_ = entered(first, first, first)
    late = Connection()
    assert second.enter(late) == "server_overloaded"
    assert first.make_room(None)
    assert longest.is_closed
    second.resume_held()
    assert (second.assign_slot(late), totals.read("connections")) == (None, [2, 1])


def test_an_address_has_its_bound_over_all(tables, totals, asked):
    first, second = tables
    one, other = entered(first, second, peer="192.0.2.1")
    second.work(other)
    late = Connection("192.0.2.1")
    assert second.enter(late) == "address_limit"
    assert (asked, late.is_held) == (["192.0.2.1"], True)
    assert not first.make_room("192.0.2.2")
    assert first.make_room("192.0.2.1")
    assert one.is_closed
    assert second.assign_slot(late) is None
    entered(first, peer="192.0.2.2")
    assert totals.read("connections") == [1, 2]


def test_a_held_connection_that_leaves_is_not_resumed(tables):
    first, second = tables
    for each in entered(first, first, second):
        (first if first.placed in each.groups else second).work(each)
    gone, held = Connection(), Connection()
    assert [second.enter(each) for each in (gone, held)] == ["server_overloaded"] * 2
    second.leave(gone)
    second.resume_held()
    assert (gone.is_held, held.is_held) == (True, False)
    second.resume(held)  # by its timer, later


def test_a_front_that_died_has_no_connections(tables, totals):
    first, second = tables
    entered(first, first, second, peer=None)
    entered(second, peer="192.0.2.1")
    totals.forget(1)
    assert totals.read("connections") == [2, 0]
    assert totals.by_address(0).add("192.0.2.1", 1) == 1


def test_a_process_without_room_for_files_keeps_its_own_bound(totals, asked):
    table = ConnectionTable(
        ServerSettings(max_connections=100), Metrics(), cut_slowest=lambda: False,
        counts=SharedConnections(totals, 0, ask=asked.append),
    )  # fmt: skip
    table.limit_own(2)
    first, *_ = entered(table, table, table)
    assert (first.is_closed, table.num_open, table.max_connections) == (True, 2, 4)


def test_counts_by_address_are_exact_for_a_few_and_never_too_few(totals):
    first, second = totals.by_address(0), totals.by_address(1)
    addresses = [f"192.0.{number // 256}.{number % 256}" for number in range(4000)]
    for number, address in enumerate(addresses):
        (first if number % 2 else second).add(address, 1)
    found = [first.add(address, 0) for address in addresses]
    assert min(found) == 1
    assert sum(number > 1 for number in found) < 100  # of 4,000; some 14 are expected
    for address in addresses[::2]:
        second.add(address, -1)
    assert second.add(addresses[0], 0) in {0, 1}
