"""wrk as the load: cheap beside the server it shares two cores with, which no Python client is."""

import json
import math
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.machine import cores, on_cores
from benchmarks.program import KEY, MODEL
from benchmarks.server import Server
from benchmarks.throughput import requests_per_second

MAX_LATE_SECONDS = 120
SCRIPT = Path(__file__).with_name("load.lua")
HINT = "wrk, the load program, was not found. Install it (apt-get install wrk, brew install wrk) and run this again."


@dataclass(frozen=True)
class Load:
    """What `num_clients` clients saw, in seconds. `began` and `finished_at`, the moments of the replies in order, share a clock."""

    num_clients: int
    num_requests: int
    p50: float
    p95: float
    p99: float
    duration_seconds: float
    began: float
    finished_at: list[float]

    @property
    def requests_per_second(self) -> float:
        return requests_per_second(self.began, self.finished_at, self.num_clients)


def is_installed() -> bool:
    return shutil.which("wrk") is not None


def bodies_file(path: Path, requests: Sequence[Any], formats: Sequence[str] = ("base64",), **more: str) -> Path:
    """One request body a line: `requests` are what stands under `input`, and ask for one of `formats` after another."""
    bodies = ({"model": MODEL, "input": texts, "encoding_format": form, **more} for texts, form in zip(requests, cycle(formats)))
    return write_bodies(path, bodies)


def write_bodies(path: Path, bodies: Iterable[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(body)}\n" for body in bodies), encoding="ascii")
    return path


def started(
    server: Server, bodies: Path, *, clients: int, seconds: float, key: str = KEY, path: str = "/v1/embeddings"
) -> "subprocess.Popen[str]":
    """Goes on until `finished`, at most MAX_LATE_SECONDS beyond `seconds`. A server on one core leaves it the others."""
    longest = math.ceil(seconds) + MAX_LATE_SECONDS
    command = ["wrk", "-t1", f"-c{clients}", f"-d{longest}s", f"--timeout={MAX_LATE_SECONDS}s", "-s", str(SCRIPT)]
    arguments = [str(bodies), key, str(seconds), str(2 * clients)]
    with on_cores(set(cores()) - {server.core}):
        return subprocess.Popen([*command, f"{server.url}{path}", "--", *arguments], stdout=subprocess.PIPE, text=True)


def finished(process: "subprocess.Popen[str]", *, clients: int) -> Load:
    """Ends the load. Raises RuntimeError if any reply was not 200, or any connection broke: a figure of failures is none."""
    assert process.stdout
    process.send_signal(signal.SIGINT)  # wrk stops and reports
    output = process.stdout.read()
    if process.wait():
        raise RuntimeError(f"wrk ended with {process.returncode}: {output}")
    report = json.loads(output.splitlines()[-1])
    if report["not_ok"] or report["broken"]:
        raise RuntimeError(f"{report['not_ok']} replies were not 200 and {report['broken']} connections broke")
    return Load(
        num_clients=clients,
        num_requests=len(report["finished_at"]),
        **{name: report[name] / 1e6 for name in ("p50", "p95", "p99")},
        duration_seconds=report["duration_seconds"],
        began=report["began"],
        finished_at=report["finished_at"],
    )


def load(server: Server, bodies: Path, *, clients: int, seconds: float, path: str = "/v1/embeddings") -> Load:
    """Goes on beyond `seconds` until each client was answered twice: to drop a slow window would flatter the server."""
    process = started(server, bodies, clients=clients, seconds=seconds, path=path)
    assert process.stdout
    said = iter(process.stdout.readline, "")
    if not any(line == "enough\n" for line in said):
        raise RuntimeError(f"{clients} clients were not answered twice each in {seconds + MAX_LATE_SECONDS:.0f} s")
    return finished(process, clients=clients)
