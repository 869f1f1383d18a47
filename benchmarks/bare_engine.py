"""The gateway's own engine without HTTP: as many callers and the same inputs, so that what the road costs is left."""

import asyncio
import itertools
import sys
import time
from pathlib import Path

from benchmarks.corpus import INPUTS, MODEL, Corpus, read
from benchmarks.throughput import requests_per_second
from benchmarks.worker import answer
from gateway.config import EngineSettings, LimitSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Inputs
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.settings import LocalSettings
from gateway.metrics import Metrics

NUM_CALLERS = 4
FAR_SECONDS = 3600.0


class BareEngine:
    def __init__(self, corpus: Corpus, data_dir: Path) -> None:
        context = BackendContext("bench", LimitSettings(), EngineSettings(), Metrics().of_model("bench"), data_dir)
        self.local = LocalEmbedder(LocalSettings(source=MODEL, download=False), context)
        self.requests = itertools.cycle(corpus.requests)
        self.runner = asyncio.Runner()
        self.runner.run(self.local.start())

    def bulk(self, seconds: float) -> dict[str, float]:
        began = time.monotonic()
        finished_at = self.runner.run(self.calls(seconds))
        return {"texts_per_second": INPUTS * requests_per_second(began, finished_at, NUM_CALLERS)}

    async def calls(self, seconds: float) -> list[float]:
        """The moments at which calls were finished, in order."""
        finished_at: list[float] = []
        ends = time.monotonic() + seconds
        await asyncio.gather(*(self.call(ends, finished_at) for _ in range(NUM_CALLERS)))
        return finished_at

    async def call(self, ends: float, finished_at: list[float]) -> None:
        """One request after another, one at least."""
        while True:
            deadline = time.monotonic() + FAR_SECONDS
            inputs = Inputs(texts=next(self.requests), is_array=True, caller="bench", deadline=deadline)
            await self.local.embed(await self.local.prepare(inputs))
            finished_at.append(time.monotonic())
            if finished_at[-1] >= ends:
                break


if __name__ == "__main__":
    file = Path(sys.argv[1])
    engine = BareEngine(read(file), file.parent / "data")  # the server's: it has compiled the model already
    engine.runner.run(engine.calls(seconds=0))  # warm-up
    about = engine.local.describe()
    answer({"bulk": engine.bulk}, runtime=about.runtime, precision=about.precision, device=about.device)
