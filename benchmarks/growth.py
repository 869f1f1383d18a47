"""How a gateway's resident memory grows while everything arrives that may."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import load
from benchmarks.server import Server

CLIENTS = 8
MAX_WARMUP_SECONDS, SAMPLE_SECONDS = 60, 0.5
EDGE_SAMPLES = 10
MARKS = range(0, 101, 10)  # percent of the time


def grown(server: Server, bodies: Path, *, minutes: float) -> dict[str, float]:
    """From the median of the first samples after a warm-up to that of the last; the marks tell a plateau from a slope."""
    seconds = 60 * minutes
    warmup = min(MAX_WARMUP_SECONDS, seconds)
    process = load.started(server, bodies, clients=CLIENTS, seconds=warmup + seconds)
    try:
        time.sleep(warmup)
        sampled = list(samples(server, seconds))
        seen = load.finished(process, clients=CLIENTS)
    finally:
        process.kill()
    first, last = statistics.median(sampled[:EDGE_SAMPLES]), statistics.median(sampled[-EDGE_SAMPLES:])
    marks = {f"mb_at_{percent}_percent": sampled[(len(sampled) - 1) * percent // 100] for percent in MARKS}
    return {
        "growth": last / first - 1, "first_mb": first, "last_mb": last, "highest_mb": max(sampled),
        "minutes": minutes, "warmup_minutes": warmup / 60, "requests": float(seen.num_requests), **marks,
    }  # fmt: skip


def samples(server: Server, seconds: float) -> Iterator[float]:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        yield server.memory_bytes("VmRSS") / 1e6
        time.sleep(SAMPLE_SECONDS)
