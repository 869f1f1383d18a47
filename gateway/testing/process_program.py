"""A gateway in several processes, by `server.workers`, around a model that hashes: `python -m gateway.testing.process_program`.

All but the network's arithmetic is real: MiniLM's tokenizer in the fronts, batches, device threads, cache, links and restarts. A
text's vector follows from its token ids, so `expected_vector` tells which one is right, without any gateway.
"""

import asyncio
import sys
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from gateway import log
from gateway.config import ConfigSource
from gateway.embedding.backend import BackendContext
from gateway.engine.backend import SentenceTransformersBackend
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.encoder import EncoderInfo, NetworkInfo, Window
from gateway.engine.identity import identity_of
from gateway.engine.runtime import LoadedModel
from gateway.engine.settings import LocalSettings
from gateway.processes.child import Child
from gateway.processes.engine_process import EngineProcess
from gateway.processes.front import run_front
from gateway.processes.listeners import Listeners
from gateway.processes.supervisor import Supervisor
from gateway.processes.workers import num_workers
from gateway.server.event_loop import loop_factory
from gateway.testing.folder import folder_of

MODEL = "all-MiniLM-L6-v2"
SOURCE = f"sentence-transformers/{MODEL}"
NETWORK = NetworkInfo(dimensions=384, max_tokens=256, is_normalized=True)
NUM_DEVICES = 2


def vector_of(ids: Sequence[int]) -> NDArray[np.float32]:
    """A unit vector that is another one for other ids; shape (384,)."""
    row = np.random.default_rng(zlib.crc32(np.asarray(ids, np.int32).tobytes())).standard_normal(NETWORK.dimensions, np.float32)
    return row / np.linalg.norm(row)


def expected_vector(text: str) -> NDArray[np.float32]:
    """The vector of a text of at most 256 tokens, as this gateway must answer it."""
    return vector_of(_tokenizer().encode(text).ids)


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder_of(SOURCE, download=False) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class HashingEncoder:
    def __init__(self, tokenizer_json: str) -> None:
        self.info = EncoderInfo(
            network=NETWORK, tokenizer_json=tokenizer_json, runtime="hashing", device="cpu", precision="float32",
            default_max_batch_tokens=2048,
        )  # fmt: skip

    def embed(self, windows: list[Window]) -> NDArray[np.float32]:
        return np.stack([vector_of(window.token_ids) for window in windows])


class HashingEmbedder(LocalEmbedder):
    def load(self) -> None:
        folder = folder_of(self.settings.source, download=False)
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self.start_devices(LoadedModel([HashingEncoder(tokenizer_json) for _ in range(NUM_DEVICES)], identity_of(folder)))


class HashingBackend(SentenceTransformersBackend):
    """Takes the place of the built-in backend."""

    def build(self, settings: LocalSettings, context: BackendContext) -> HashingEmbedder:
        return HashingEmbedder(settings, context)


def run_engine(child: Child) -> None:
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(EngineProcess(child, [HashingBackend()]).serve())


def main() -> None:
    source = ConfigSource()
    config = source.read()
    log.configure(level=config.log.level, line_format=config.log.format)
    listeners = Listeners(config)
    try:
        runs = {"engine": run_engine, "front": run_front}
        sys.exit(Supervisor(config, source, listeners, num_fronts=num_workers(config.server.workers), runs=runs).run())
    finally:
        listeners.close()


if __name__ == "__main__":
    main()
