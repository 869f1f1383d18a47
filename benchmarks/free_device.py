"""A gateway whose device costs nothing: `python -m benchmarks.free_device [--fronts N]`. All else of a request's road is real.

The tokenizer is MiniLM's, batches are formed and handed to device threads as ever, and the vectors are right in shape alone: so
what a request still costs is the road itself.
"""

import argparse
import asyncio
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.step_sampler import StepSampler
from gateway import log
from gateway.app import Gateway
from gateway.cli.malloc_tuning import bound_arenas
from gateway.config import Config, ConfigSource
from gateway.embedding.backend import BackendContext
from gateway.engine.backend import SentenceTransformersBackend
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.encoder import EncoderInfo, NetworkInfo, Window
from gateway.engine.identity import identity_of
from gateway.engine.openvino_encoder import BATCH_TOKENS
from gateway.engine.runtime import LoadedModel
from gateway.engine.settings import LocalSettings
from gateway.processes.child import Child
from gateway.processes.engine_process import EngineProcess
from gateway.processes.front import run_front
from gateway.processes.listeners import Listeners
from gateway.processes.supervisor import Supervisor
from gateway.server.event_loop import loop_factory
from gateway.testing.folder import folder_of

NUM_DEVICES = 2
NETWORK = NetworkInfo(dimensions=384, max_tokens=256, is_normalized=True)


class FreeEncoder:
    """Gives every window a unit vector that depends on its length."""

    def __init__(self, tokenizer_json: str) -> None:
        self.info = EncoderInfo(
            network=NETWORK, tokenizer_json=tokenizer_json, runtime="free", device="cpu", precision="float32",
            default_max_batch_tokens=BATCH_TOKENS,
        )  # fmt: skip
        self.rows = np.eye(NETWORK.max_tokens + 1, NETWORK.dimensions, dtype=np.float32)

    def embed(self, windows: list[Window]) -> NDArray[np.float32]:
        return self.rows[[len(window) for window in windows]]


class FreeEmbedder(LocalEmbedder):
    """A local model whose encoders are free."""

    def load(self) -> None:
        folder = folder_of(self.settings.source, download=False)
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        encoders = [FreeEncoder(tokenizer_json) for _ in range(NUM_DEVICES)]
        self.start_devices(LoadedModel(list(encoders), identity_of(folder)))


class FreeBackend(SentenceTransformersBackend):
    """Takes the place of the built-in backend."""

    def build(self, settings: LocalSettings, context: BackendContext) -> FreeEmbedder:
        return FreeEmbedder(settings, context)


class FreeGateway:
    """One process, or several. `steps` is a folder for the figures of their samplers."""

    def __init__(self, config: Config, source: ConfigSource, steps: Path | None) -> None:
        self.config, self.source, self.steps = config, source, steps

    def serve_one(self) -> int:
        self.sample("gateway")
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(Gateway(self.config, [FreeBackend()], source=self.source).serve())
        return 0

    def serve_many(self, num_fronts: int) -> int:
        """A supervisor, an engine, and fronts: also one alone, which `server.workers` does not make."""
        listeners = Listeners(self.config)
        runs = {"engine": self.run_engine, "front": self.run_front}
        try:
            return Supervisor(self.config, self.source, listeners, num_fronts=num_fronts, runs=runs).run()
        finally:
            listeners.close()

    def run_engine(self, child: Child) -> None:
        """The engine process, whose devices are free."""
        self.sample(child.name)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(EngineProcess(child, [FreeBackend()]).serve())

    def run_front(self, child: Child) -> None:
        self.sample(child.name)
        run_front(child)

    def sample(self, role: str) -> None:
        if self.steps is not None:
            StepSampler(self.steps / f"{role}.json").install()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.free_device", description=__doc__)
    parser.add_argument("--fronts", type=int, default=0, help="0 is one process that is all of the gateway")
    parser.add_argument("--steps", type=Path, help="a folder: between two signals, what each step costs is written there")
    options = parser.parse_args()
    bound_arenas()
    source = ConfigSource(None, flags={})
    config = source.read()
    log.configure(level=config.log.level, line_format=config.log.format)
    gateway = FreeGateway(config, source, options.steps)
    return gateway.serve_many(options.fronts) if options.fronts else gateway.serve_one()


if __name__ == "__main__":
    sys.exit(main())
