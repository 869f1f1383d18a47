"""How soon probes are answered beside ten thousand idle connections: `python -m benchmarks.idle_connections`.

Each probe has a new connection, as an orchestrator's has. Three gateways: one that has room for all, for connections that said
nothing yet and for such as are idle after a request; and one with the default of 4,096, where each newcomer closes another.
The connections are made by another process, and the watch goes on beyond the moment at which the gateway closes them all at once.
"Without them" is the same machine's own measure: what else runs on it is in every figure.
"""

import asyncio
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.program import CACHED, HOST, Program
from benchmarks.server import Server

NUM_CONNECTIONS = 10_000
PAUSE_SECONDS = 0.02  # between two probes
SETTLE_SECONDS = 3  # in which what is still in the kernel's queue is accepted
PATHS = ("/livez", "/readyz", "/metrics")
IDLE_AFTER = b"GET /livez HTTP/1.1\r\nhost: g\r\n\r\n"
ROOMY = CACHED.configured(GATEWAY__SERVER__MAX_CONNECTIONS="12000", GATEWAY__SERVER__KEEP_ALIVE_SECONDS="20")
CASES: tuple[tuple[str, Program, bytes], ...] = (
    ("silent", ROOMY, b""),
    ("idle after a request", ROOMY, IDLE_AFTER),
    ("half a head, max_connections = 4096", CACHED, IDLE_AFTER[:10]),
)


def crowd(port: int, content: bytes, is_there: object) -> None:
    """Holds that many connections open until the gateway closes them, or this process is ended."""
    asyncio.run(held(port, content, is_there))


async def held(port: int, content: bytes, is_there: object) -> None:
    writers = []
    for _ in range(NUM_CONNECTIONS):
        _, writer = await asyncio.open_connection(HOST, port)
        writer.write(content)
        writers.append(writer)
    is_there.set()  # type: ignore[attr-defined]
    await asyncio.sleep(3600)


def probed(port: int, seconds: float) -> dict[str, float]:
    """Milliseconds of each probe, one after the other, for so long."""
    ends, taken = time.monotonic() + seconds, []
    while time.monotonic() < ends:
        for path in PATHS:
            began = time.perf_counter()
            status = asyncio.run(answered(port, path))
            taken.append(1000 * (time.perf_counter() - began))
            if status != b"200":
                raise RuntimeError(f"{path} was answered {status.decode()!r}")
        time.sleep(PAUSE_SECONDS)
    cuts = statistics.quantiles(taken, n=100)
    return {"probes": len(taken), "p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(taken)}


async def answered(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n".encode())
    status = (await reader.readline())[9:12]
    await reader.read()
    writer.close()
    return status


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = multiprocessing.get_context("spawn")
    for name, program, content in CASES:
        with tempfile.TemporaryDirectory() as folder, Server(program, Path(folder)) as server:
            is_there = context.Event()
            process = context.Process(target=crowd, args=(server.port, content, is_there), daemon=True)
            before = server.memory_bytes("VmRSS") / 1e6
            without = probed(server.port, 5)
            process.start()
            arriving = probed(server.port, 5)
            is_there.wait(120)
            time.sleep(SETTLE_SECONDS)
            staying = probed(server.port, 5)
            memory = server.memory_bytes("VmRSS") / 1e6 - before
            closing = probed(server.port, 22)
            process.kill()
            shown = {
                "without them": without,
                "while they come": arriving,
                "while they are there": staying,
                "while they are closed": closing,
            }
            json.dump({"case": name, "more_mb": round(memory), **shown}, sys.stdout)
            print(flush=True)


if __name__ == "__main__":
    main()
