"""Writes of one turn leave together, on a real socket and asyncio's own loop, whatever they are."""

import asyncio

from gateway.api.corked import Corked


class Answering(asyncio.Protocol):
    """Writes these chunks when it is connected to, and closes."""

    def __init__(self, chunks, *, is_cut=False):
        self.chunks, self.is_cut = chunks, is_cut

    def connection_made(self, transport):
        corked = Corked(transport)
        for chunk in self.chunks:
            corked.write(chunk)
        if self.is_cut:
            transport.abort()
        corked.close()


async def received(chunks, **options):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(chunks, **options), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with asyncio.timeout(10):
            try:
                return await reader.read()
            except ConnectionResetError:
                return b""
            finally:
                writer.close()


async def test_empty_writes_neither_hold_the_connection_nor_the_loop():
    assert await received([b"head", b"", b"body", b""]) == b"headbody"
    assert await received([b""]) == b""


async def test_large_writes_arrive_whole():
    assert await received([b"a" * 3_000_000, b"", b"b" * 3_000_000]) == b"a" * 3_000_000 + b"b" * 3_000_000


async def test_what_is_written_to_a_connection_that_was_cut_is_dropped():
    assert await received([b"head"], is_cut=True) == b""
