"""Batches: their speed beside `gateway embed`'s, a lone text beside one, a million lines on a device that costs nothing, an upload.

`--only speed|beside|many|upload` runs one of the four. The bars are those of a quiet machine.
"""

import argparse
import contextlib
import functools
import http.client
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.corpus import corpus
from benchmarks.machine import has_native_bfloat16, machine, place, programs, versions
from benchmarks.program import BIN, GATEWAY, HOST, KEY, MODEL, Program
from benchmarks.rounds import add_options, kept, now
from benchmarks.server import Server

ENDED = ("completed", "failed", "expired", "cancelled")
NUM_SINGLES = 300
SINGLE_PAUSE_SECONDS = 0.02
UPLOAD_BYTES = 200_000_000
BOUNDARY = "a-boundary-of-a-benchmark"
LIMITS = {f"GATEWAY__BATCHES__{name}": "2000000" for name in ("MAX_REQUESTS", "MAX_INPUTS")}
SIZES = {"GATEWAY__BATCHES__MAX_FILE_BYTES": "2000000000", "GATEWAY__FILES__MAX_FILE_BYTES": "2000000000"}
ROOMY = {**LIMITS, **SIZES, "GATEWAY__FILES__MIN_FREE_BYTES": "0"}
PROGRAM = GATEWAY.configured(**ROOMY)
FREE = Program("free device", (sys.executable, "-m", "benchmarks.free_device"), "/readyz", PROGRAM.environment)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batches", description=__doc__)
    add_options(parser)
    parser.add_argument("--only", choices=list(PARTS), help="one of the four")
    parser.add_argument("--texts", type=int, default=12_000, help="of `speed`")
    parser.add_argument("--lines", type=int, default=1_000_000, help="of `many`")
    options = parser.parse_args()
    about: dict[str, Any] = {"at": now(), "machine": machine(), "versions": versions()}
    print(f"{place(about)}\n{programs(about)}\n")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        for name, measure in PARTS.items():
            if options.only in {None, name}:
                about[name] = measure(Path(folder), options)
                print(f"{name}: " + ", ".join(f"{what} {value:,.3g}" for what, value in about[name].items()), flush=True)
    print(f"kept in {kept('batches', about)}")


def speed(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Texts a second, in turns. What one text takes is taken off: the start of the command, and the polls of the batch."""
    texts = list(itertools.islice(sentences(), options.texts))
    found: dict[str, list[float]] = {"batch": [], "embed": []}
    with Server(PROGRAM, folder / "compiled") as server:
        for _ in range(options.rounds):
            for name, run in {"batch": run_batch, "embed": run_embed}.items():
                found[name].append(len(texts) / (run(server, texts) - run(server, texts[:1])))
    batch, embed = statistics.median(found["batch"]), statistics.median(found["embed"])
    return {"batch texts/s": batch, "embed texts/s": embed, "ratio (bar >= 0.9)": batch / embed}


def run_batch(server: Server, texts: list[str]) -> float:
    batch_id, began = begun(server, (request(number, text) for number, text in enumerate(texts))), time.monotonic()
    wait_ended(server, batch_id)
    return time.monotonic() - began


def run_embed(server: Server, texts: list[str]) -> float:
    given, made = server.folder / "texts.jsonl", server.folder / "vectors.npy"
    given.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    environment = {**PROGRAM.filled(port="0", folder=str(server.folder), model="").environment, "HF_HUB_OFFLINE": "1"}
    command: list[str | Path] = [BIN / "gateway", "embed", given, "-o", made, "--model", MODEL, "--restart", "--overwrite"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=server.folder, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    return time.monotonic() - began


def beside(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """p99 of one text alone in milliseconds: on the idle machine, and beside a batch that runs all the while."""
    del options
    with Server(PROGRAM, folder / "compiled") as server:
        idle = singles(server)
        texts = itertools.islice(sentences(), 50_000)
        batch_id = begun(server, (request(number, text) for number, text in enumerate(texts)))
        while batch_of(server, batch_id)["request_counts"]["completed"] == 0:
            time.sleep(0.05)
        busy = singles(server)
        is_running = batch_of(server, batch_id)["status"] == "in_progress"
        asked(server, "POST", f"/v1/batches/{batch_id}/cancel")
    if not is_running:
        raise RuntimeError("the batch ended before the texts beside it: it is too small for this machine")
    bar = "bar <= 60" if has_native_bfloat16() else "no bar without bfloat16"
    return {"idle p50": p(idle, 50), "idle p99": p(idle, 99), "beside p50": p(busy, 50), f"beside p99 ({bar})": p(busy, 99)}


def singles(server: Server) -> list[float]:
    """Milliseconds of each, one after another."""
    found = []
    for number, text in enumerate(itertools.islice(sentences(), NUM_SINGLES)):
        body = json.dumps({"model": MODEL, "input": f"{text} {number}"}).encode()
        began = time.monotonic()
        asked(server, "POST", "/v1/embeddings", body)
        found.append(1000 * (time.monotonic() - began))
        time.sleep(SINGLE_PAUSE_SECONDS)
    return found


def many(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Lines a second and megabytes more than before, to the end."""
    with Server(FREE, folder / "many") as server:
        before = server.memory_bytes("VmRSS")
        with latest(server) as late:
            began = time.monotonic()
            batch_id = begun(server, (request(number, f"text {number}") for number in range(options.lines)))
            found = wait_ended(server, batch_id)
            seconds = time.monotonic() - began
        if found["request_counts"]["completed"] != options.lines:
            raise RuntimeError(str(found))
        more = (server.memory_bytes("VmHWM") - before) / 1e6
    return {"lines/s": options.lines / seconds, "MB more (bar <= 200)": more, "/livez at most, ms": max(late)}


def upload(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """The event loop's lag by its own gauge and as /livez shows it, while 200 MB arrive."""
    with Server(FREE, folder / "upload") as server:
        seconds: list[float] = []
        gauges: list[float] = []
        for _ in range(options.rounds):
            with latest(server, gauges) as late:
                began = time.monotonic()
                uploaded(server, itertools.repeat(b"x" * 99_999 + b"\n", UPLOAD_BYTES // 100_000))
                seconds.append(time.monotonic() - began)
    return {"seconds": statistics.median(seconds), "lag, ms (bar <= 50)": max(gauges), "/livez at most, ms": max(late)}


@contextlib.contextmanager
def latest(server: Server, gauges: list[float] | None = None) -> Iterator[list[float]]:
    """Asks /livez all the while: the list gets milliseconds; `gauges` the event loop's lag, in milliseconds."""
    found, is_over = [0.0], threading.Event()

    def look() -> None:
        while not is_over.wait(0.01):
            began = time.monotonic()
            with urllib.request.urlopen(f"{server.url}/livez", timeout=60) as reply:
                reply.read()
            found.append(1000 * (time.monotonic() - began))
            if gauges is not None:
                gauges.append(1000 * server.counted("gateway_event_loop_lag_seconds"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


def sentences() -> Iterator[str]:
    """Real ones, for ever; each comes with another number at its end."""
    for number in itertools.count():
        yield from (f"{text} {number}" for texts in known().requests for text in texts)


known = functools.cache(corpus)


def request(number: int, text: str) -> bytes:
    body = {"model": MODEL, "input": text, "encoding_format": "base64"}
    return json.dumps({"custom_id": f"id-{number}", "method": "POST", "url": "/v1/embeddings", "body": body}).encode() + b"\n"


def begun(server: Server, lines: Iterator[bytes]) -> str:
    body = {"input_file_id": uploaded(server, lines), "endpoint": "/v1/embeddings", "completion_window": "24h"}
    return str(asked(server, "POST", "/v1/batches", json.dumps(body).encode())["id"])


def batch_of(server: Server, batch_id: str) -> dict[str, Any]:
    return asked(server, "GET", f"/v1/batches/{batch_id}")


def wait_ended(server: Server, batch_id: str) -> dict[str, Any]:
    while (found := batch_of(server, batch_id))["status"] not in ENDED:
        time.sleep(0.02)
    return found


def uploaded(server: Server, lines: Iterator[bytes]) -> str:
    """Streams a file, chunk by chunk. Returns its id."""

    def form() -> Iterator[bytes]:
        yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{BOUNDARY}\r\n'.encode()
        yield b'Content-Disposition: form-data; name="file"; filename="input.jsonl"\r\n\r\n'
        while chunk := b"".join(itertools.islice(lines, 2000)):
            yield chunk
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return str(asked(server, "POST", "/v1/files", form(), **kind)["id"])


def asked(server: Server, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=600)
    try:
        told = {"authorization": f"Bearer {KEY}", "content-type": "application/json", **headers}
        connection.request(method, path, body, told, encode_chunked=not isinstance(body, bytes | None))
        reply = connection.getresponse()
        content = reply.read()
    finally:
        connection.close()
    if reply.status != 200:
        raise RuntimeError(f"{method} {path}: {reply.status} {content[:300]!r}")
    found: dict[str, Any] = json.loads(content)
    return found


def p(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, float]]] = {
    "speed": speed, "beside": beside, "many": many, "upload": upload,
}  # fmt: skip

if __name__ == "__main__":
    main()
