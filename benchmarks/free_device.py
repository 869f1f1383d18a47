"""A gateway whose device costs nothing: `python -m benchmarks.free_device [--fronts N]`. All else of a request's road is real.

The tokenizer is MiniLM's, batches are formed and handed to device threads as ever, and the vectors are right in shape alone: so
what a request still costs is the road itself.
"""

import argparse
import asyncio
import sys

import numpy as np
from numpy.typing import NDArray

from gateway import log
from gateway.app import Gateway
from gateway.cli.malloc_tuning import bound_arenas
from gateway.config import Config, ConfigSource
from gateway.embedding.backend import BackendContext
from gateway.engine.backend import SentenceTransformersBackend
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.encoder import EncoderInfo, NetworkInfo, Window
from gateway.engine.identity import identity_of
from gateway.engine.loaded_model import LoadedModel
from gateway.engine.openvino_encoder import BATCH_TOKENS
from gateway.engine.settings import LocalSettings
from gateway.engine.weights import folder_of
from gateway.processes.child import Child
from gateway.processes.engine_process import EngineProcess
from gateway.processes.front import run_front
from gateway.processes.listeners import Listeners
from gateway.processes.supervisor import Supervisor
from gateway.server.event_loop import loop_factory

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


def run_free_engine(child: Child) -> None:
    """The engine process, whose devices are free."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(EngineProcess(child, [FreeBackend()]).serve())


def serve_one(config: Config, source: ConfigSource) -> int:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(Gateway(config, [FreeBackend()], source=source).serve())
    return 0


def serve_many(config: Config, source: ConfigSource, num_fronts: int) -> int:
    """A supervisor, an engine, and fronts: also one alone, which `server.workers` does not make."""
    listeners = Listeners(config)
    runs = {"engine": run_free_engine, "front": run_front}
    try:
        return Supervisor(config, source, listeners, num_fronts=num_fronts, runs=runs).run()
    finally:
        listeners.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.free_device", description=__doc__)
    parser.add_argument("--fronts", type=int, default=0, help="0 is one process that is all of the gateway")
    num_fronts = parser.parse_args().fronts
    bound_arenas()
    source = ConfigSource(None, flags={})
    config = source.read()
    log.configure(level=config.log.level, line_format=config.log.format)
    return serve_many(config, source, num_fronts) if num_fronts else serve_one(config, source)


if __name__ == "__main__":
    sys.exit(main())
