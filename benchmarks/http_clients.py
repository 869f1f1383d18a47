"""Which library speaks with upstreams? One small request after another to the stand-in: `python -m benchmarks.http_clients`.

The client is on one core and the stand-in on another. aiohttp, httpx2 and httpcore2 are there; httpx and niquests are measured too
where they are installed.
"""

import asyncio
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks.machine import cores, on_cores
from benchmarks.program import STANDIN
from benchmarks.server import Server

CLIENTS = (1, 32)
SECONDS, ROUNDS = 3.0, 2
BODY = orjson.dumps({"model": "m", "input": ["a small text of some ten words to be embedded now"], "encoding_format": "base64"})
HEADERS = {"content-type": "application/json", "authorization": "Bearer key"}
MAX_CONNECTIONS = 100

Ask = Callable[[], Awaitable[Any]]


async def aiohttp(url: str, stack: AsyncExitStack) -> Ask:
    import aiohttp

    session = await stack.enter_async_context(aiohttp.ClientSession())

    async def ask() -> None:
        async with session.post(url, data=BODY, headers=HEADERS) as response:
            await response.read()

    return ask


async def httpx2(url: str, stack: AsyncExitStack, name: str = "httpx2") -> Ask:
    library = importlib.import_module(name)
    limits = library.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
    client = await stack.enter_async_context(library.AsyncClient(limits=limits))
    return lambda: client.post(url, content=BODY, headers=HEADERS)


async def httpx(url: str, stack: AsyncExitStack) -> Ask:
    return await httpx2(url, stack, "httpx")


async def httpcore2(url: str, stack: AsyncExitStack) -> Ask:
    library = importlib.import_module("httpcore2")
    pool = await stack.enter_async_context(library.AsyncConnectionPool(max_connections=MAX_CONNECTIONS))
    headers = {**HEADERS, "host": url.split("/")[2], "content-length": str(len(BODY))}
    return lambda: pool.request("POST", url, content=BODY, headers=list(headers.items()))


async def niquests(url: str, stack: AsyncExitStack) -> Ask:
    library = importlib.import_module("niquests")
    session = await stack.enter_async_context(library.AsyncSession(pool_maxsize=MAX_CONNECTIONS))
    return lambda: session.post(url, data=BODY, headers=HEADERS)


LIBRARIES = (aiohttp, httpx2, httpx, httpcore2, niquests)


async def measured(ask: Ask, clients: int) -> str:
    seconds: list[float] = []

    async def client(ends: float) -> None:
        while time.perf_counter() < ends:
            began = time.perf_counter()
            await ask()
            seconds.append(time.perf_counter() - began)

    await asyncio.gather(*(client(time.perf_counter() + 0.5) for _ in range(clients)))  # warm-up
    seconds.clear()
    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client(began + SECONDS) for _ in range(clients)))
    elapsed, cpu = time.perf_counter() - began, time.process_time() - used
    return (
        f"{clients:3} clients: {len(seconds) / elapsed:7,.0f} requests/s, {1e6 * cpu / len(seconds):5.0f} µs of CPU each,"
        f" p50 {1000 * statistics.median(seconds):6.2f} ms"
    )


async def compare(url: str) -> None:
    for _ in range(ROUNDS):
        for library in LIBRARIES:
            if importlib.util.find_spec(library.__name__) is None:
                continue
            async with AsyncExitStack() as stack:
                ask = await library(url, stack)
                for clients in CLIENTS:
                    print(f"{library.__name__:10} {await measured(ask, clients)}", flush=True)


def main() -> None:
    first, *others = list[int | None](cores()) or [None]
    folder = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    with Server(STANDIN, folder, core=others[0] if others else first) as server, on_cores({first} if first is not None else None):
        uvloop.run(compare(f"{server.url}/v1/embeddings"))


if __name__ == "__main__":
    main()
