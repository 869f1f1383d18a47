"""wrk as the load: cheap beside the server it shares two cores with, which no Python client is."""

import json
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.server import KEY, MODEL, Server
from benchmarks.throughput import requests_per_second

MAX_SECONDS, POLL_SECONDS = 120, 0.2
ANSWERED = "gateway_requests_total"
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


def bodies_file(path: Path, requests: list[Any]) -> Path:
    """One request body a line: `requests` are what stands under `input`."""
    lines = (json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"}) for texts in requests)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    return path


def started(server: Server, bodies: Path, *, clients: int) -> "subprocess.Popen[str]":
    command = ["wrk", "-t1", f"-c{clients}", f"-d{MAX_SECONDS}s", f"--timeout={MAX_SECONDS}s", "-s", str(SCRIPT)]
    return subprocess.Popen([*command, f"{server.url}/v1/embeddings", "--", str(bodies), KEY], stdout=subprocess.PIPE, text=True)


def finished(process: "subprocess.Popen[str]", *, clients: int) -> Load:
    """Ends the load. Raises RuntimeError if any reply was not 200, or any connection broke: a figure of failures is none."""
    process.send_signal(signal.SIGINT)  # wrk stops and reports
    output, _ = process.communicate()
    if process.returncode:
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


def load(server: Server, bodies: Path, *, clients: int, seconds: float) -> Load:
    """Goes on beyond `seconds` until each client was answered twice: to drop a slow window would flatter the server."""
    ends = time.monotonic() + seconds
    answered = server.counted(ANSWERED)
    process = started(server, bodies, clients=clients)
    while process.poll() is None and (time.monotonic() < ends or server.counted(ANSWERED) - answered < 2 * clients):
        time.sleep(max(POLL_SECONDS, ends - time.monotonic()))
    return finished(process, clients=clients)
