"""Writes of one turn leave together, on a real socket, whatever they are: on asyncio's own loop and on the one that serves."""

import asyncio

import pytest
import uvloop

from gateway.server.write_buffer import CoalescingTransport


class Answering(asyncio.Protocol):
    """Writes these chunks when it is asked to, and closes."""

    def __init__(self, chunks, *, is_cut=False):
        self.chunks, self.is_cut = chunks, is_cut

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        corked = CoalescingTransport(self.transport)
        if self.is_cut:
            self.transport.abort()  # as a client's reset does, in the turn in which the reply is written
        for chunk in self.chunks:
            corked.write(chunk)
        if not self.is_cut:
            corked.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def received(request):
    """What a client gets of these chunks; nothing may have gone wrong unseen."""

    def get(chunks, **options):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(read(chunks, **options))

    return get


async def read(chunks, **options):
    loop, wrong = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    server = await loop.create_server(lambda: Answering(chunks, **options), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"go")
        async with asyncio.timeout(10):
            try:
                return await reader.read()
            except ConnectionResetError:
                return b""
            finally:
                writer.close()
                assert wrong == []


def test_empty_writes_neither_hold_the_connection_nor_the_loop(received):
    assert received([b"head", b"", b"body", b""]) == b"headbody"
    assert received([b""]) == b""


def test_large_writes_arrive_whole(received):
    assert received([b"a" * 3_000_000, b"", b"b" * 3_000_000]) == b"a" * 3_000_000 + b"b" * 3_000_000


def test_what_is_written_to_a_connection_that_was_cut_is_dropped(received):
    assert received([b"head"], is_cut=True) == b""
