"""Names, looked up with a deadline and without the event loop's threads."""

import asyncio
import socket
import threading

import pytest

from gateway.name_lookup import NameLookup

BOUND_SECONDS = 30


@pytest.fixture
def hanging(monkeypatch):
    """A resolver that answers once the gate is open; `asked` are the names."""
    gate, real = threading.Event(), socket.getaddrinfo
    gate.asked = []

    def getaddrinfo(host, *args, **kwargs):
        gate.asked.append(host)
        gate.wait(BOUND_SECONDS)
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield gate
    gate.set()


async def test_a_name_has_its_addresses():
    found = await NameLookup().addresses("localhost", 80, family=socket.AF_INET, timeout_seconds=BOUND_SECONDS)
    assert [place for *_, place in found] == [("127.0.0.1", 80)]


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 300])
async def test_what_is_no_name_is_an_oserror(name):
    with pytest.raises(OSError, match=r"."):
        await NameLookup().addresses(name, 80, timeout_seconds=BOUND_SECONDS)


async def test_a_resolver_that_hangs_costs_its_time_and_one_thread_however_many_ask(hanging):
    lookup = NameLookup()
    asked = [lookup.addresses("db.example", 80, timeout_seconds=0.05) for _ in range(50)]
    failures = await asyncio.gather(*asked, return_exceptions=True)
    assert {str(failure) for failure in failures} == {f"[Errno {socket.EAI_AGAIN}] the name was not looked up in time"}
    assert hanging.asked == ["db.example"]
    assert await asyncio.to_thread(int, "7") == 7
    waiting = asyncio.create_task(lookup.addresses("db.example", 80, timeout_seconds=BOUND_SECONDS))
    await asyncio.sleep(0)
    hanging.set()
    assert await waiting
    assert hanging.asked == ["db.example"]
    assert not lookup.pending


async def test_who_stops_waiting_stops_nobody_else(hanging):
    lookup = NameLookup()
    leaving, staying = (asyncio.create_task(lookup.addresses("h", 80, timeout_seconds=BOUND_SECONDS)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    hanging.set()
    assert await staying


async def test_without_a_thread_it_is_an_oserror_and_the_next_one_asks_again(monkeypatch):
    def refusing(_):
        raise RuntimeError("can't start new thread")

    names = NameLookup()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refusing)
        with pytest.raises(OSError, match="no more threads"):
            await names.addresses("localhost", 80, timeout_seconds=BOUND_SECONDS)
    assert await names.addresses("localhost", 80, timeout_seconds=BOUND_SECONDS)


async def test_a_look_up_that_dies_is_told_to_who_waits_and_the_next_one_asks_again(monkeypatch):
    def dying(*_, **__):
        raise MemoryError

    names = NameLookup()
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", dying)
        with pytest.raises(OSError, match="died"):
            await names.addresses("localhost", 80, timeout_seconds=BOUND_SECONDS)
    assert await names.addresses("localhost", 80, timeout_seconds=BOUND_SECONDS)
