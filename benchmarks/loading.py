"""What loading a second model costs the first: the p99 of its single texts meanwhile, beside quiet times of the same run.

    python -m benchmarks.loading [--seconds 20] [--rate 20] [--hidden 384] [--layers 12] [--loads 5] [--workers 1]

The second model is a BERT with random weights, made on the spot. Its first request compiles and loads it; then it is unloaded and
loaded again a few times. Short texts go to the first model, MiniLM, at a steady rate, whether or not earlier ones were answered.
The bar is for the window from the second model's first request to its answer.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np

from benchmarks.program import BIN, Program
from benchmarks.server import Server

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
BAR = 2.0
IDLE_SECONDS = 1.0
WORDS = ["the", "server", "turns", "every", "text", "into", "a", "vector", "that", "can", "be", "compared", "with", "others"]


def save_model(folder: Path, *, hidden: int, layers: int) -> Path:
    """Saves a BERT with MiniLM's tokenizer and random weights, as sentence-transformers does."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    from gateway.engine.weights import package_folder

    tokenizer = AutoTokenizer.from_pretrained(str(package_folder(MINILM)))
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "parts")
    tokenizer.save_pretrained(folder / "parts")
    modules = [Transformer(str(folder / "parts"), max_seq_length=256), Pooling(hidden, pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "whole"), create_model_card=False)
    return folder / "whole"


def program(second: Path, *, workers: int) -> Program:
    rows = [
        {"name": "first", "source": MINILM, "download": False},
        {"name": "second", "source": str(second), "load": "first_use", "unload_after": IDLE_SECONDS},
    ]
    environment = {
        "GATEWAY__AUTH__MODE": "none", "GATEWAY__SERVER__PORT": "{port}", "GATEWAY_DATA_DIR": "{folder}/data",
        "GATEWAY__MODELS": json.dumps(rows), "GATEWAY__SERVER__WORKERS": str(workers),
    }  # fmt: skip
    return Program("gateway", (str(BIN / "gateway"), "serve"), "/readyz", environment)


class Client:
    """Asks the first model at a steady rate, for a text that no cache has."""

    def __init__(self, http: httpx.AsyncClient, rate: float) -> None:
        self.http = http
        self.rate = rate
        self.number = 0

    async def ask(self, model: str, due: float) -> float:
        """Returns the milliseconds from when the request was due to its answer."""
        self.number += 1
        text = f"{' '.join(WORDS[self.number % 5 :])} {self.number}"
        reply = await self.http.post("/v1/embeddings", json={"model": model, "input": text})
        reply.raise_for_status()
        return 1000 * (time.perf_counter() - due)

    async def window(self, until: Callable[[], bool]) -> list[float]:
        """The times of all requests that were due before `until` is true."""
        tasks: list[asyncio.Task[float]] = []
        begun = time.perf_counter()
        while not until():
            due = begun + len(tasks) / self.rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(self.ask("first", due)))
        return list(await asyncio.gather(*tasks))

    async def for_seconds(self, seconds: float) -> list[float]:
        end = time.perf_counter() + seconds
        return await self.window(lambda: time.perf_counter() >= end)

    async def during(self, work: Awaitable[object]) -> list[float]:
        task = asyncio.ensure_future(work)
        times = await self.window(task.done)
        await task
        return times


async def measure(server: Server, *, seconds: float, rate: float, loads: int) -> dict[str, list[float]]:
    async with httpx.AsyncClient(base_url=server.url, timeout=1900) as http:
        client = Client(http, rate)
        await client.for_seconds(3)
        windows = {"quiet before": await client.for_seconds(seconds)}
        windows["compile and load"] = await client.during(until_loaded(client))
        windows["quiet after"] = await client.for_seconds(seconds)
        again: list[float] = []
        for _ in range(loads):
            await until_unloaded(http)
            again += await client.during(until_loaded(client))
        windows[f"load alone, {loads} times"] = again
        return windows


async def until_unloaded(http: httpx.AsyncClient) -> None:
    is_loaded = True
    while is_loaded:
        await asyncio.sleep(0.1)
        is_loaded = (await http.get("/v1/models/second")).json()["loaded"]


async def until_loaded(client: Client) -> None:
    """The first request waits for its deadline, and is sent again: compiling may take longer."""
    while True:
        reply = await client.http.post("/v1/embeddings", json={"model": "second", "input": "a"})
        if reply.status_code != 503:
            reply.raise_for_status()
            return
        await asyncio.sleep(0.2)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("seconds", 20.0), ("rate", 20.0), ("hidden", 384), ("layers", 12), ("loads", 5), ("workers", 1)):
        options.add_argument(f"--{name}", type=type(default), default=default)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        second = save_model(Path(folder), hidden=asked.hidden, layers=asked.layers)
        with Server(program(second, workers=asked.workers), Path(folder) / "server") as server:
            windows = asyncio.run(measure(server, seconds=asked.seconds, rate=asked.rate, loads=asked.loads))
    quiet = float(np.percentile(windows["quiet before"] + windows["quiet after"], 99))
    sys.stdout.write(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {asked.rate:g} single texts a second\n")
    for name, times in windows.items():
        p50, p99 = np.percentile(times, [50, 99])
        shown = f"{name:24} {len(times):6} texts  p50 {p50:7.1f} ms  p99 {p99:7.1f} ms  {p99 / quiet:5.2f}x\n"
        sys.stdout.write(shown)
    ratio = float(np.percentile(windows["compile and load"], 99)) / quiet
    sys.stdout.write(f"bar: at most {BAR:g}x while it compiles and loads: {ratio:.2f}x\n")
    sys.exit(ratio > BAR)


if __name__ == "__main__":
    main()
