"""What the engine itself costs with many devices: `python -m benchmarks.simulated_devices`. One process, no HTTP, no tokenising.

A free device gives its vectors at once; a GPU after a time that its texts take there, for which its thread waits without the GIL.
All else of the engine is Python under one GIL: queue, batches, delivery. So free devices, however many, tell how many texts the
engine can hand out, and GPUs how many of them it can keep busy.
"""

import argparse
import asyncio
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import corpus, figures_page
from benchmarks.free_device import FreeEncoder
from benchmarks.machine import machine
from benchmarks.rounds import kept, now
from benchmarks.table import aligned
from gateway.config import EngineSettings, LimitSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Inputs, Prepared
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.encoder import Window
from gateway.engine.identity import identity_of
from gateway.engine.runtime import LoadedModel
from gateway.engine.settings import LocalSettings
from gateway.metrics import Metrics
from gateway.server.event_loop import loop_factory

NUM_DEVICES = (1, 4, 16)
GPU_TOKENS_PER_SECOND = 1_200_000  # some 30,000 texts of 41 tokens
GPU_BATCH_TOKENS = 32_768  # torch_network's on CUDA
REQUESTS_AT_ONCE = {1: 256, corpus.INPUTS: 32}  # of each device, by inputs of a request
FAR_SECONDS = 3600.0
LAG_SECONDS = 0.02


class SimulatedGPU(FreeEncoder):
    """Takes as long as its texts would on a GPU."""

    def embed(self, windows: list[Window]) -> NDArray[np.float32]:
        time.sleep(sum(map(len, windows)) / GPU_TOKENS_PER_SECOND)
        return super().embed(windows)


KINDS = {"free": FreeEncoder, "GPU": SimulatedGPU}


@dataclass(frozen=True)
class Figures:
    """Of one load. `cpu_us` is for a text, `num_cores` how many were busy. `lag_ms` is the event loop's lag, median and worst."""

    kind: str
    num_devices: int
    inputs: int
    texts_per_second: float
    busy_share: float | None
    cpu_us: float
    num_cores: float
    lag_ms: tuple[float, float]

    def cells(self) -> tuple[str, ...]:
        busy = "" if self.busy_share is None else f"{100 * self.busy_share:.0f} %"
        cpu, cores = f"{self.cpu_us:.1f} us", f"{self.num_cores:.2f}"
        lag = " / ".join(f"{each:.1f}" for each in self.lag_ms)
        return (self.kind, str(self.num_devices), str(self.inputs), f"{self.texts_per_second:,.0f}", busy, cpu, cores, f"{lag} ms")


COLUMNS = ("device", "threads", "inputs a request", "texts/s", "devices busy", "CPU a text", "cores", "loop lag, p50 / worst")


class Engine:
    """A context: a local model whose devices are simulated."""

    def __init__(self, kind: str, num_devices: int, data_dir: Path) -> None:
        settings = EngineSettings(max_batch_tokens=GPU_BATCH_TOKENS, max_queue_tokens=2**40)
        context = BackendContext("bench", LimitSettings(), settings, Metrics().of_model("bench"), data_dir)
        tokenizer_json = (corpus.model_folder() / "tokenizer.json").read_text(encoding="utf-8")
        encoders = [KINDS[kind](tokenizer_json) for _ in range(num_devices)]
        self.kind, self.num_devices = kind, num_devices
        self.local = LocalEmbedder(LocalSettings(source=corpus.MODEL, download=False), context)
        self.local.start_devices(LoadedModel(list(encoders), identity_of(corpus.model_folder())))

    async def __aenter__(self) -> "Engine":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.local.close()

    async def figures(self, requests: list[list[str]], seconds: float) -> Figures:
        prepared = [await self.prepared(texts) for texts in requests]
        inputs = len(requests[0])
        num_tokens = sum(each.num_tokens for each in prepared) / len(prepared) / inputs
        await self.load(prepared, seconds / 4)  # warm
        cpu, began = time.process_time(), time.perf_counter()
        num_requests, lags = await self.load(prepared, seconds)
        cpu, elapsed = time.process_time() - cpu, time.perf_counter() - began
        num_texts = num_requests * inputs
        possible = self.num_devices * GPU_TOKENS_PER_SECOND * elapsed / num_tokens
        return Figures(
            self.kind, self.num_devices, inputs, texts_per_second=num_texts / elapsed,
            busy_share=num_texts / possible if self.kind == "GPU" else None, cpu_us=1e6 * cpu / num_texts,
            num_cores=cpu / elapsed, lag_ms=(1e3 * statistics.median(lags), 1e3 * max(lags)),
        )  # fmt: skip

    async def prepared(self, texts: list[str]) -> Prepared[object]:
        inputs = Inputs(texts=texts, is_array=True, caller="bench", deadline=time.monotonic() + FAR_SECONDS)
        return await self.local.prepare(inputs)

    async def load(self, prepared: list[Prepared[object]], seconds: float) -> tuple[int, list[float]]:
        """Sends as many requests at once as keep all devices busy. Returns how many were answered, and how late the loop was."""
        num_callers = REQUESTS_AT_ONCE[len(prepared[0].inputs.texts)] * self.num_devices
        ends = time.perf_counter() + seconds
        callers = [self.call(prepared, first, ends) for first in range(num_callers)]
        lags, *counts = await asyncio.gather(self.lags(ends), *callers)
        return sum(counts), lags  # type: ignore[arg-type]

    async def call(self, prepared: list[Prepared[object]], first: int, ends: float) -> int:
        num_answered = 0
        while time.perf_counter() < ends:
            await self.local.embed(prepared[(first + num_answered) % len(prepared)])  # type: ignore[arg-type]
            num_answered += 1
        return num_answered

    async def lags(self, ends: float) -> list[float]:
        found = []
        while (before := time.perf_counter()) < ends:
            await asyncio.sleep(LAG_SECONDS)
            found.append(time.perf_counter() - before - LAG_SECONDS)
        return found


async def measured(seconds: float) -> list[Figures]:
    requests = corpus.corpus().requests
    loads = [[[text] for texts in requests[:16] for text in texts], requests]
    found = []
    with TemporaryDirectory(prefix="gateway-devices-") as folder:
        for kind in KINDS:
            for num_devices in NUM_DEVICES:
                async with Engine(kind, num_devices, Path(folder)) as engine:
                    found += [await engine.figures(load, seconds) for load in loads]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulated_devices", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--into", type=Path, help="a page whose figures are replaced: docs/cost.md")
    options = parser.parse_args()
    about: dict[str, Any] = {"at": now(), "machine": machine(), "gpu_tokens_per_second": GPU_TOKENS_PER_SECOND}
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        found = runner.run(measured(options.seconds))
    place = "{cpu}, {cores} cores, load {load_before} before".format(**about["machine"])
    table = f"{about['at'][:10]}; {place}\n\n{aligned([COLUMNS, *(figures.cells() for figures in found)])}"
    print(table)
    print(kept(f"{about['at']}-devices", {**about, "figures": [asdict(figures) for figures in found]}))
    if options.into is not None:
        figures_page.put(options.into, "devices", table)


if __name__ == "__main__":
    main()
