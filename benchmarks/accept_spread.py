"""How evenly keep-alive connections spread over fronts, and what a killed front loses: three ways to share a port.

    python -m benchmarks.accept_spread

shared     one listening socket that all fronts inherit, accepted from by the event loop as soon as it is readable
reuseport  a socket each, and the kernel chooses one by the connection's addresses; the supervisor holds all open
balanced   one inherited socket; a front with more connections than another lets that one accept (gateway/processes/acceptor.py)

The fronts are bare processes with uvloop that answer lines, each with a millisecond of CPU, as a busy front would. For the losses
one front is killed while a client opens a connection every 2 ms and waits for an answer; it is started again after 0.3 s.
"""

import asyncio
import os
import signal
import socket
import statistics
import time
from collections import Counter

import uvloop

from gateway.processes.acceptor import BalancedAcceptor
from gateway.processes.totals import Totals

ROUNDS = 20
WORK_SECONDS = 0.001
RESTART_SECONDS = 0.3
WAYS = ("shared", "reuseport", "balanced")


class Echo(asyncio.Protocol):
    def __init__(self, number, count):
        self.number, self.count = number, count

    def connection_made(self, transport):
        self.transport = transport
        self.count.add(1)

    def connection_lost(self, _error):
        self.count.add(-1)

    def data_received(self, _data):
        end = time.perf_counter() + WORK_SECONDS
        while time.perf_counter() < end:
            pass
        self.transport.write(b"%d\n" % self.number)


async def serve(way, number, listening, totals):
    loop = asyncio.get_running_loop()
    count = totals.of_front("connections", number)
    if way == "balanced":
        BalancedAcceptor([listening], lambda: Echo(number, count), totals, number)
    else:
        await loop.create_server(lambda: Echo(number, count), sock=listening, backlog=2048)
    await asyncio.Event().wait()


class Fronts:
    def __init__(self, way, num_fronts):
        self.way = way
        self.totals = Totals(num_fronts)
        first = socket.create_server(("127.0.0.1", 0), backlog=2048, reuse_port=way == "reuseport")
        self.port = first.getsockname()[1]
        self.sockets = [first]
        for _ in range(num_fronts - 1):
            self.sockets.append(
                socket.create_server(("127.0.0.1", self.port), backlog=2048, reuse_port=True) if way == "reuseport" else first
            )
        self.pids = [self.start(number) for number in range(num_fronts)]

    def start(self, number):
        pid = os.fork()
        if pid == 0:
            try:
                uvloop.run(serve(self.way, number, self.sockets[number], self.totals))
            finally:
                os._exit(0)
        return pid

    def kill(self, number):
        os.kill(self.pids[number], signal.SIGKILL)
        os.waitpid(self.pids[number], 0)
        self.totals.forget(number)

    def close(self):
        for number in range(len(self.pids)):
            self.kill(number)
        for each in self.sockets:
            each.close()


async def ask(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x\n")
    return int(await asyncio.wait_for(reader.readline(), 10)), writer


async def spread(port, num_connections, *, at_once):
    """The connections of each front."""
    if at_once:
        asked = await asyncio.gather(*(ask(port) for _ in range(num_connections)))
    else:
        asked = [await ask(port) for _ in range(num_connections)]
    for _, writer in asked:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in asked), return_exceptions=True)
    await asyncio.sleep(0.02)
    return Counter(number for number, _ in asked)


async def churn(port, num_connections=3000):
    """Connections a second, each for one question, 16 at a time."""

    async def one():
        for _ in range(num_connections // 16):
            _, writer = await ask(port)
            writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(16)))
    return num_connections / (time.perf_counter() - began)


async def losses(fronts):
    """Connections that got no answer, and the longest wait of those that did, while one front was killed."""
    lost, waits = 0, []

    async def one():
        nonlocal lost
        began = time.perf_counter()
        try:
            _, writer = await ask(fronts.port)
            waits.append(time.perf_counter() - began)
            writer.close()
        except (TimeoutError, OSError, ValueError):
            lost += 1

    tasks = []
    for number in range(500):
        if number == 100:
            fronts.kill(0)
        if number == 100 + int(RESTART_SECONDS / 0.002):
            fronts.pids[0] = fronts.start(0)
        tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    return lost, max(waits)


def main():
    print("| way | fronts | connections | opened | busiest front's share of an even share: median, worst | nobody's |")
    for num_fronts in (2, 4):
        for way in WAYS:
            fronts = Fronts(way, num_fronts)
            for num_connections in (16, 64, 256):
                for at_once in (True, False):
                    found = [asyncio.run(spread(fronts.port, num_connections, at_once=at_once)) for _ in range(ROUNDS)]
                    shares = [max(each.values()) * num_fronts / num_connections for each in found]
                    empty = sum(len(each) < num_fronts for each in found)
                    how = "at once" if at_once else "in turn"
                    told = f"{statistics.median(shares):.2f}, {max(shares):.2f} | {empty} of {ROUNDS}"
                    print(f"| {way} | {num_fronts} | {num_connections} | {how} | {told} |", flush=True)
            lost, longest = asyncio.run(losses(fronts))
            print(
                f"{way}, {num_fronts} fronts, one killed: {lost} of 500 connections lost, the longest wait {longest * 1000:.0f} ms",
                flush=True,
            )
            print(f"{way}, {num_fronts} fronts: {asyncio.run(churn(fronts.port)):.0f} new connections a second", flush=True)
            fronts.close()


if __name__ == "__main__":
    main()
