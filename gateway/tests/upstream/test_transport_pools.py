"""Connections lost without a word. What a dropped packet does, `processes/test_failing_network` sees; here is what must stay."""

import asyncio
import socket
import sys
import time
from contextlib import suppress

import pytest

from gateway.errors import UpstreamError
from gateway.tcp import NUM_PROBES
from gateway.testing import upstream_server as standin
from gateway.testing.upstream_server import Said
from gateway.tests.upstream.conftest import embedded, over
from gateway.tests.upstream.test_dispatch_trouble import saying, until
from gateway.upstream.tcp_silence import Silence, unanswered_seconds


def ports(server):
    return {writer.get_extra_info("peername")[1] for writer in server.writers}


def held_by(gate):
    def answer(request):
        said = standin.openai(request)
        said.gate = gate
        return said

    return answer


async def test_after_one_that_hung_no_connection_of_before_is_used():
    gate = asyncio.Event()
    async with over("openai", standin.openai, read_timeout_seconds=5, retry=False) as (server, remote):
        server.answer = held_by(gate)
        tasks = [asyncio.create_task(embedded(remote, text)) for text in ("a", "b")]
        await until(lambda: server.num_open == 2)
        gate.set()
        await asyncio.gather(*tasks)
        before = ports(server)
        remote.client.connection.leave(remote.client.connection.pool)
        server.answer = standin.openai
        await embedded(remote, "c")
        assert len(before) == 2
        assert ports(server) - before


async def test_a_reply_that_is_late_leaves_the_connections_of_before():
    async with over("openai", standin.openai, read_timeout_seconds=0.2, retry=False) as (server, remote):
        await embedded(remote, "a")
        before = ports(server)
        server.answer = saying(Said(gate=asyncio.Event()))
        with pytest.raises(UpstreamError, match="did not answer in time"):
            await embedded(remote, "b")
        server.answer = standin.openai
        await embedded(remote, "c")
        await until(lambda: not ports(server) & before)
        assert len(remote.client.connection.pools) == 1


async def test_who_is_under_way_on_connections_that_were_left_is_answered():
    gate = asyncio.Event()
    async with over("openai", standin.openai) as (server, remote):
        server.answer = held_by(gate)
        task = asyncio.create_task(embedded(remote, "a"))
        await until(lambda: server.num_open == 1)
        connection = remote.client.connection
        connection.leave(connection.pool)
        assert len(connection.pools) == 2
        gate.set()
        assert len((await task).rows) == 1
        assert connection.pools == {connection.pool}


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
def test_a_server_that_reads_slowly_is_not_taken_for_one_that_is_gone():
    found = []
    silence = Silence(0.0, lambda: found.append(True))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        [address, *_] = socket.getaddrinfo(*listening.getsockname(), type=socket.SOCK_STREAM)
        with silence.made_socket(address) as sock:
            sock.connect(listening.getsockname())
            sock.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    sock.send(bytes(65_536))
            assert not silence.is_silent(sock, time.monotonic())
            assert unanswered_seconds(sock) is None
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == NUM_PROBES
        assert unanswered_seconds(sock) is None  # closed
    assert not found
