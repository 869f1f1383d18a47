"""What the road of a request costs: `python -m benchmarks.road`. The device costs nothing, so all CPU time is the gateway's own.

Each load takes `--seconds`, after a quarter of that to warm up. CPU time is the whole process's, from /proc. The gateway has a core
to itself, wrk the others.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import corpus, load
from benchmarks.machine import cores, machine
from benchmarks.program import CACHED, GATEWAY, HERE, Program
from benchmarks.server import Server

TICKS = os.sysconf("SC_CLK_TCK")
CLIENTS = 32
BULK_CLIENTS = 4


@dataclass(frozen=True)
class Cost:
    """Of one load. `cpu_us` and `rate` are for a request, or for a text in bulk."""

    name: str
    cpu_us: float
    rate: float
    p50_ms: float


def free(program: Program) -> Program:
    return replace(program, name="free device", command=(sys.executable, "-m", "benchmarks.free_device")).configured(
        PYTHONPATH=str(HERE.parent)
    )


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cost(name: str, server: Server, bodies: Path, *, clients: int, seconds: float, num_texts: int) -> Cost:
    load.load(server, bodies, clients=clients, seconds=seconds / 4)  # warm
    before = cpu_seconds(server.process.pid)
    seen = load.load(server, bodies, clients=clients, seconds=seconds)
    spent = cpu_seconds(server.process.pid) - before
    return Cost(name, 1e6 * spent / (seen.num_requests * num_texts), seen.requests_per_second * num_texts, 1e3 * seen.p50)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.road", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sentences = corpus.corpus()
    single = [text for request in sentences.requests for text in request]
    core = cores()[0]
    with tempfile.TemporaryDirectory(prefix="gateway-road-") as name:
        folder = Path(name)
        one = load.bodies_file(folder / "single", single)
        known = load.bodies_file(folder / "cached", single[:64])
        bulk = load.bodies_file(folder / "bulk", sentences.requests)
        with (
            Server(free(GATEWAY), folder / "uncached", core=core) as uncached,
            Server(free(CACHED), folder / "cached-gateway", core=core) as cached,
        ):
            for _ in range(options.rounds):
                costs = [
                    cost("single", uncached, one, clients=CLIENTS, seconds=options.seconds, num_texts=1),
                    cost("single, one client", uncached, one, clients=1, seconds=options.seconds, num_texts=1),
                    cost("cached", cached, known, clients=CLIENTS, seconds=options.seconds, num_texts=1),
                    cost("bulk, a text", uncached, bulk, clients=BULK_CLIENTS, seconds=options.seconds, num_texts=corpus.INPUTS),
                ]
                for each in costs:
                    print(f"{each.name:20} {each.cpu_us:8.1f} us CPU {each.rate:10.0f} /s   p50 {each.p50_ms:.2f} ms", flush=True)
            print(f"memory {uncached.memory_bytes('VmRSS') / 1e6:.0f} MB; {json.dumps(machine())}")


if __name__ == "__main__":
    main()
