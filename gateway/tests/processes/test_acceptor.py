"""A front accepts its part of the connections, and at its end all that wait."""

import asyncio
import socket

from gateway.processes.acceptor import BalancedAcceptor
from gateway.processes.totals import Totals


async def test_what_waits_at_the_end_is_accepted():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made: asyncio.Queue[asyncio.Protocol] = asyncio.Queue()

        def make_protocol() -> asyncio.Protocol:
            made.put_nowait(protocol := asyncio.Protocol())
            return protocol

        acceptor = BalancedAcceptor([listening], make_protocol, Totals(1), 0)
        clients = [socket.create_connection(listening.getsockname()) for _ in range(5)]
        acceptor.close()
        for _ in clients:
            await made.get()
        for client in clients:
            client.close()
