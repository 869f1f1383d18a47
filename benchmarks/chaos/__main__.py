"""Kills fronts and the engine of one gateway at random, under load. Exit code 1 if a promise was broken."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.chaos.processes import Processes
from benchmarks.chaos.traffic import Traffic
from benchmarks.machine import machine, place
from benchmarks.rounds import now

BACK_SECONDS = {"front": 4.0, "engine": 30.0}  # under full load; the engine as fast as a warm start
PAUSE_SECONDS = 2.5, 5.0  # after one is back: two retries of 2 s each bring a client through one outage, not through two
SCRAPE_SECONDS = 0.5
COUNTS = ("_total", "_bucket", "_count")
MAX_TOLD = 50  # broken promises; the last line has their number


class Chaos:
    """`broken` has each promise that was not kept."""

    def __init__(self, processes: Processes, traffic: Traffic, seed: int) -> None:
        self.processes = processes
        self.traffic = traffic
        self.random = random.Random(seed)  # noqa: S311 - what is killed when is no secret
        self.back_seconds: dict[str, list[float]] = defaultdict(list)
        self.counts: dict[tuple[object, ...], float] = {}
        self.num_scrapes = 0
        self.broken: list[str] = []

    async def run(self, seconds: float, num_clients: int) -> None:
        ends = time.monotonic() + seconds
        clients = asyncio.create_task(self.traffic.run(num_clients))
        scraping = asyncio.create_task(self.scrape())
        while time.monotonic() < ends:
            await asyncio.sleep(self.random.uniform(*PAUSE_SECONDS))
            await self.kill_one()
        self.traffic.is_over = True
        await clients
        scraping.cancel()

    async def kill_one(self) -> None:
        """Kills a process, and waits until its successor serves."""
        name = self.random.choice(self.processes.names)
        role = name.partition("-")[0]
        old = self.processes.kill(name)
        killed = time.monotonic()
        while self.processes.pid(name) == old or not self.processes.is_ready(name):
            if time.monotonic() - killed > BACK_SECONDS[role] * 3:
                self.broken.append(f"{name} did not come back")
                return
            await asyncio.sleep(0.02)
        seconds = time.monotonic() - killed
        self.back_seconds[role].append(seconds)
        if seconds > BACK_SECONDS[role]:
            self.broken.append(f"{name} was back after {seconds:.1f} s")

    async def scrape(self) -> None:
        """Reads /metrics again and again: no count may ever fall, and no series may be told twice."""
        while True:
            await asyncio.sleep(SCRAPE_SECONDS)
            try:
                async with httpx.AsyncClient(timeout=10) as client:
                    reply = await client.get(f"{self.processes.origin}/metrics")
            except httpx.TransportError:
                continue
            if reply.status_code == httpx.codes.OK:
                self.num_scrapes += 1
                self.compare(reply.text)

    def compare(self, text: str) -> None:
        samples = [each for family in text_string_to_metric_families(text) for each in family.samples if each.name.endswith(COUNTS)]
        found = {(each.name, *sorted(each.labels.items())): each.value for each in samples}
        if len(found) < len(samples):
            self.broken.append("/metrics tells a series twice")
        if fallen := [key for key, value in self.counts.items() if found.get(key, 0.0) < value]:
            self.broken.append(f"{fallen[0]} fell from {self.counts[fallen[0]]:g} to {found.get(fallen[0], 0.0):g}")
        self.counts = found

    def proofless(self) -> list[str]:
        """What makes a run without a broken promise prove nothing."""
        without = {"no process was killed": not self.back_seconds, "no text was embedded": not self.traffic.tally.kinds["200"]}
        return [words for words, is_so in without.items() if is_so]

    def report(self) -> str:
        tally = self.traffic.tally
        lines = [f"{kind:>45} {number:>9,}" for kind, number in tally.kinds.most_common()]
        for role, seconds in self.back_seconds.items():
            most, half = max(seconds), sorted(seconds)[len(seconds) // 2]
            lines.append(f"{role}: killed {len(seconds)} times, back within {most:.2f} s, half of the times within {half:.2f} s")
        lines.append(f"longest answer {tally.longest_seconds:.2f} s; {tally.num_retried} requests were brought through by retries")
        lines.append(f"{self.num_scrapes} scrapes of /metrics, {len(self.counts)} counts each")
        return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long (default 600)")
    parser.add_argument("--fronts", type=int, default=2, help="how many fronts (default 2)")
    parser.add_argument("--clients", type=int, default=12, help="requests under way at once (default 12)")
    parser.add_argument("--seed", type=int, default=1, help="of what is asked, and of what is killed when (default 1)")
    options = parser.parse_args()
    print(f"{place({'at': now(), 'machine': machine()})}\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        processes = Processes(Path(name), options.fronts)
        processes.start()
        chaos = Chaos(processes, Traffic(processes.origin, options.seed), options.seed)
        try:
            asyncio.run(chaos.run(options.seconds, options.clients))
        finally:
            code = processes.stop()
        chaos.broken += [f"exit code {code} after SIGTERM"] if code else []
        chaos.broken += [f"process {pid} is left" for pid in processes.left_over()]
        chaos.broken += [f"the log has {event}" for event in processes.defects()]
        last_lines = processes.log_file.read_text(encoding="utf-8").splitlines()[-40:]
    print(chaos.report())
    broken = [*chaos.broken, *chaos.proofless(), *chaos.traffic.tally.wrong]
    if broken:
        print("\n".join(["the log ends:", *last_lines, "", *(f"BROKEN: {each}" for each in broken[:MAX_TOLD])]))
    print(f"BAD: {len(broken)} promises were broken" if broken else "well: every vector was right, every other answer clean")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
