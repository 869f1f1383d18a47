"""What refused work leaves behind: `python -m benchmarks.refused_work`. Bodies of some KB that unpack to 10 MB and are refused.

Of each kind twelve, four at once. Resident memory in MB is told before, right after, and once the gateway had time to trim.
"""

import gzip
import json
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.program import CACHED, KEY, MODEL
from benchmarks.server import Server

CLIENTS, BODIES, REST_SECONDS = 4, 12, 6


def packed(texts: Sequence[str]) -> bytes:
    return gzip.compress(json.dumps({"model": MODEL, "input": list(texts)}).encode(), 9)


KINDS = {
    "one input of too many tokens": packed([f"{number} " + "a " * 145_000 for number in range(36)]),
    "too many tokens together": packed([f"{number} " + "a " * 2600 for number in range(2000)]),
    "too many inputs": packed(["a"] * 2_500_000),
    "no JSON": packed(["a " * 5_000_000])[:-8] + b"12345678",
}


def refused(server: Server, body: bytes) -> float:
    """Seconds until the 400."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Content-Encoding": "gzip"}
    began = time.monotonic()
    try:
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/embeddings", body, headers), timeout=300).close()
    except urllib.error.HTTPError as error:
        if error.code == 400:
            return time.monotonic() - began
        raise
    raise RuntimeError("it was served")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Server(CACHED, Path(folder)) as server, ThreadPoolExecutor(CLIENTS) as clients:
        time.sleep(REST_SECONDS)  # in which the network for short texts is made
        before = server.memory_bytes("VmRSS")
        for kind, body in KINDS.items():
            seconds = sum(clients.map(partial(refused, server), [body] * BODIES)) / BODIES
            after = server.memory_bytes("VmRSS")
            time.sleep(REST_SECONDS)
            memory = [before, after, server.memory_bytes("VmRSS"), server.memory_bytes("VmHWM")]
            before_mb, after_mb, rest_mb, highest_mb = (round(num_bytes / 1e6) for num_bytes in memory)
            told = {"kb": len(body) // 1000, "seconds": round(seconds, 2), "before_mb": before_mb, "after_mb": after_mb}
            json.dump({"kind": kind, **told, "later_mb": rest_mb, "highest_mb": highest_mb}, sys.stdout)
            print(flush=True)


if __name__ == "__main__":
    main()
