"""Memory that comes back: the resident memory of a gateway after each of ten loads and unloads of MiniLM.

    python -m benchmarks.unloading [--cycles 10] [--rest 5] [--source FOLDER] [--data FOLDER]

Each load serves 250 texts of many lengths. Before and after each unload it rests, until the network of single texts is built: that
takes 1.5 s on two idle cores, and keeps the memory until it is done. On a busy machine rest longer. Anonymous memory is what the
process has for itself; the rest are mapped files.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.loading import MINILM
from benchmarks.program import BIN, Program
from benchmarks.server import Server

WAIT_SECONDS = 1800  # for a first load, which compiles
TEXTS = ["word " * (1 + number % 200) + str(number) for number in range(250)]
MB = 1_000_000


def resident(pid: int) -> dict[str, float]:
    """Megabytes: all of it, and its anonymous part."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    found = {
        name: int(value.split()[0]) * 1024 / MB
        for name, _, value in (line.partition(":") for line in lines)
        if name in {"VmRSS", "RssAnon"}
    }
    return {"resident": found["VmRSS"], "anonymous": found["RssAnon"]}


def program(source: str, data: str, rest: float) -> Program:
    row = {"name": "m", "source": source, "load": "first_use", "unload_after": rest}
    environment = {
        "GATEWAY__AUTH__MODE": "none", "GATEWAY__SERVER__PORT": "{port}", "GATEWAY_DATA_DIR": data,
        "GATEWAY__MODELS": json.dumps([row]), "GATEWAY__CACHE__MAX_BYTES": "0",
    }  # fmt: skip
    return Program("gateway", (str(BIN / "gateway"), "serve"), "/readyz", environment)


def ask(http: httpx.Client, texts: list[str]) -> None:
    """Waits for a model that compiles: the first request's deadline may be shorter."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (
        reply := http.post("/v1/embeddings", json={"model": "m", "input": texts})
    ).status_code == httpx.codes.SERVICE_UNAVAILABLE:
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    reply.raise_for_status()


def wait_unloaded(http: httpx.Client) -> None:
    while http.get("/v1/models/m").json()["loaded"]:
        time.sleep(0.1)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--cycles", type=int, default=10)
    options.add_argument("--rest", type=float, default=5)
    options.add_argument("--source", default=MINILM)
    options.add_argument("--data", default="{folder}/data", help="the folder of compiled models")
    asked = options.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(program(asked.source, asked.data, asked.rest), Path(folder) / "server") as server,
    ):
        pid = server.process.pid
        with httpx.Client(base_url=server.url, timeout=WAIT_SECONDS) as http:
            rows = [("never loaded", resident(pid))]
            for cycle in range(1, asked.cycles + 1):
                for start in range(4):
                    ask(http, TEXTS[start::4])
                loaded = http.get("/v1/models/m").json().get("bytes", 0)
                time.sleep(0.8 * asked.rest)
                rows.append((f"load {cycle}", resident(pid)))
                wait_unloaded(http)
                time.sleep(asked.rest)
                rows.append((f"unload {cycle}", resident(pid)))
    sys.stdout.write(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; `bytes` says {loaded / MB:.0f} MB\n")
    for name, figures in rows:
        shown = "  ".join(f"{what} {value:6.0f} MB" for what, value in figures.items())
        sys.stdout.write(f"{name:14} {shown}\n")


if __name__ == "__main__":
    main()
