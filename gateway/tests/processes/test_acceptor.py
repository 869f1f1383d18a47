"""A front accepts its part of the connections, and at its end all that wait."""

import asyncio
import socket

from gateway.processes.acceptor import BalancedAcceptor
from gateway.processes.totals import Totals


class Accepted(asyncio.Protocol):
    def __init__(self, made):
        self.made = made

    def connection_made(self, transport):
        self.transport = transport
        self.made.put_nowait(self)


async def test_what_waits_at_the_end_is_accepted():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made: asyncio.Queue[Accepted] = asyncio.Queue()
        acceptor = BalancedAcceptor([listening], lambda: Accepted(made), Totals(1), 0)
        clients = [socket.create_connection(listening.getsockname()) for _ in range(5)]
        acceptor.close()
        for _ in clients:
            (await made.get()).transport.abort()
        for client in clients:
            client.close()
