"""`python -m benchmarks.static`: a static model's warm start, memory and bulk rate, in a real gateway on this machine.

The table is random, with 30,522 tokens and 256 dimensions: 31 MB. The first start measures it, the second one is timed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from benchmarks import corpus
from gateway.testing.folder import folder_of
from gateway.testing.programs import free_port

DIMENSIONS, TEXTS, REQUESTS, WAIT_SECONDS = 256, 1024, 40, 120
TEXT = "how do i reset the password of my old account"  # ten tokens


def save_model(folder: Path) -> int:
    """Saves the model, and returns the size of its table in bytes."""
    tokenizer = Tokenizer.from_file(str(folder_of(corpus.MODEL, download=False) / "tokenizer.json"))
    table = np.random.default_rng(7).standard_normal((tokenizer.get_vocab_size(), DIMENSIONS)).astype(np.float32)
    module = StaticEmbedding(tokenizer, embedding_weights=torch.from_numpy(table))
    SentenceTransformer(modules=[module], device="cpu").save(str(folder), create_model_card=False)
    return table.nbytes


def start(model: Path, data: Path) -> "tuple[subprocess.Popen[bytes], str, float]":
    """Starts a gateway. Returns its process, its URL, and the seconds until it was ready."""
    port = free_port()
    environ = {**os.environ, "GATEWAY_DATA_DIR": str(data), "GATEWAY__AUTH": "none", "GATEWAY__CACHE__MAX_BYTES": "0"}
    began = time.perf_counter()
    command = [sys.executable, "-m", "gateway", "serve", "--model", str(model), "--port", str(port)]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL, cwd=data)
    url = f"http://127.0.0.1:{port}"
    while time.perf_counter() - began < WAIT_SECONDS:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1):
                return process, url, time.perf_counter() - began
        except OSError:
            time.sleep(0.01)
    raise TimeoutError("the gateway was not ready")


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)
    process.wait(WAIT_SECONDS)


def status_of(process: "subprocess.Popen[bytes]") -> tuple[float, int]:
    """CPU seconds, and resident bytes."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="utf-8").split()[1])
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE")


def bulk_rate(url: str, model: str) -> float:
    """Texts a second, one request after another."""
    body = json.dumps({"model": model, "input": [TEXT] * TEXTS, "encoding_format": "base64"}).encode()
    asked: Any = urllib.request.Request(f"{url}/v1/embeddings", data=body, headers={"content-type": "application/json"})
    began = time.perf_counter()
    for _ in range(REQUESTS):
        with urllib.request.urlopen(asked, timeout=WAIT_SECONDS) as reply:
            reply.read()
    return REQUESTS * TEXTS / (time.perf_counter() - began)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        model, data = Path(name) / "static", Path(name) / "data"
        data.mkdir()
        size = save_model(model)
        stop(start(model, data)[0])
        process, url, seconds = start(model, data)
        cpu_seconds, resident = status_of(process)
        rate = bulk_rate(url, model.name)
        stop(process)
    sys.stdout.write(
        f"warm start {seconds:.2f} s, {cpu_seconds:.2f} s of CPU; {resident / 1e6:.0f} MB resident, {size / 1e6:.0f} of them the"
        f" table; {rate:,.0f} texts/s over HTTP, {TEXTS} a request; load average {os.getloadavg()[0]:.1f}\n"
    )


if __name__ == "__main__":
    main()
