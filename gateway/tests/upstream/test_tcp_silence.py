"""Upstreams that keep a connection and never answer, that drip, and names that nobody looks up: each has an end, and counts."""

import asyncio
import socket
import threading

import pytest

from gateway.errors import DeadlinePassed, GatewayError, UpstreamError, UpstreamUnavailable
from gateway.testing import upstream_server as standin
from gateway.testing.swallowing_proxy import SwallowingProxy
from gateway.testing.upstream_server import Said, Standin
from gateway.tests.upstream.conftest import built, embedded, over
from gateway.tests.upstream.test_dispatch_trouble import counted, saying
from gateway.upstream import dispatch

pytestmark = pytest.mark.timeout(60)


def drips(request):
    said = standin.openai(request)
    said.drips = True
    return said


async def test_connections_that_are_swallowed_cost_one_request_its_time_and_the_next_goes_over_a_new_one():
    async with Standin(standin.openai).serving() as server:
        with SwallowingProxy(int(server.url.split(":")[2].split("/")[0])) as proxy:
            address = server.url.replace(server.url.split(":")[2].split("/")[0], str(proxy.port))
            remote = built("openai", url=address, read_timeout_seconds=0.3)
            await remote.start()
            try:
                await asyncio.gather(*(embedded(remote, f"a{number}") for number in range(5)))  # so many connections are open
                num_accepted = proxy.num_accepted
                proxy.swallow()
                with pytest.raises(UpstreamError, match="did not answer in time"):
                    await embedded(remote, "b")
                for number in range(5):
                    await embedded(remote, f"c{number}")  # none of them meets another of the old connections
                assert proxy.num_accepted > num_accepted
                assert counted(remote, "gateway_upstream_requests_total", outcome="timeout") == 1
            finally:
                await remote.close()


async def test_a_reply_that_drips_ends_and_counts_against_its_server():
    async with over("openai", standin.openai, read_timeout_seconds=0.2, breaker_failures=2, retry=False) as (server, remote):
        server.answer = drips
        for _ in range(2):
            with pytest.raises(UpstreamError, match="did not answer in time"):
                await embedded(remote, "word " * 50)
        with pytest.raises(UpstreamUnavailable, match="cooling down"):
            await embedded(remote, "a")


@pytest.mark.parametrize("trouble", [drips, None])
async def test_a_deadline_that_passes_while_a_server_is_silent_or_drips_counts_against_it(trouble, monkeypatch):
    monkeypatch.setattr(dispatch, "FAULT_SECONDS", 0.1)
    gate = asyncio.Event()
    async with over("openai", standin.openai, breaker_failures=2, retry=False) as (server, remote):
        server.answer = trouble or saying(Said(gate=gate))
        for _ in range(2):
            with pytest.raises(DeadlinePassed):
                await embedded(remote, "word " * 50, seconds=0.3)
        assert counted(remote, "gateway_upstream_requests_total", outcome="timeout") == 2
        with pytest.raises(UpstreamUnavailable, match="cooling down"):
            await embedded(remote, "a")


async def test_a_deadline_that_was_nearly_over_when_a_server_was_asked_is_not_its_fault():
    gate = asyncio.Event()
    async with over("openai", standin.openai, breaker_failures=1, retry=False) as (server, remote):
        server.answer = saying(Said(gate=gate))
        with pytest.raises(DeadlinePassed):
            await embedded(remote, "a", seconds=0.2)
        server.answer = standin.openai
        await embedded(remote, "a")


async def test_a_name_that_nobody_looks_up_ends_within_the_time_for_a_connection(monkeypatch):
    gate, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host, *args, **kwargs):
        if host == "upstream.example":
            gate.wait(30)
        return real("127.0.0.1", *args, **kwargs)

    async with Standin(standin.openai).serving() as server:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        remote = built("openai", url=server.url.replace("127.0.0.1", "upstream.example"), connect_timeout_seconds=0.2)
        starting = asyncio.create_task(remote.start())
        try:
            async with asyncio.timeout(30):
                while "cannot be reached" not in (remote.health().detail or ""):
                    await asyncio.sleep(0.01)
                assert (
                    await asyncio.gather(*(asyncio.to_thread(int, "7") for _ in range(64))) == [7] * 64
                )  # the loop's threads are free
                gate.set()
                await starting
            await embedded(remote, "a")
        except GatewayError:
            starting.cancel()
            raise
        finally:
            gate.set()
            await remote.close()
