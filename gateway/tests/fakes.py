"""The two fakes the tests use: an embedder and a clock. Everything else in them is real."""

import hashlib
import struct

import numpy as np

from gateway.embedding.embedder import Description, Health, Inputs, Prepared, Vectors
from gateway.errors import OperatorError


class FakeClock:
    """A clock that stands still until it is told to move. Called like `time.monotonic`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeEmbedder:
    """Embeds each text as a unit vector made of its hash; a word is a token. Follows the Embedder protocol."""

    def __init__(self, *, dimensions: int = 8, fingerprint: str = "f" * 24 + ".fake-float32", fails_with: str | None = None) -> None:
        self.dimensions = dimensions
        self.fingerprint = fingerprint
        self.fails_with = fails_with
        self.state = Health("loading")
        self.prepared: list[Inputs] = []
        self.is_closed = False

    async def start(self) -> None:
        if self.fails_with is not None:
            self.state = Health("failed", self.fails_with)
            raise OperatorError(self.fails_with)
        self.state = Health("ready")

    async def prepare(self, inputs: Inputs) -> Prepared:
        self.prepared.append(inputs)
        counts = [len(text.split()) for text in inputs.texts]
        return Prepared(inputs, counts, [False] * len(counts), inputs.long_input or "chunk", stages={"tokenize": 0.0})

    async def embed(self, prepared: Prepared) -> Vectors:
        rows = np.stack([hashed(text, self.dimensions) for text in prepared.inputs.texts])
        return Vectors(rows, {"queue": 0.0, "compute": 0.0})

    def describe(self) -> Description:
        return Description(
            backend="fake",
            source="fake",
            dimensions=self.dimensions,
            max_tokens=256,
            long_input="chunk",
            fingerprint=self.fingerprint,
            runtime="fake",
            device="cpu",
            precision="float32",
            created=1_700_000_000,
        )

    def health(self) -> Health:
        return self.state

    async def close(self) -> None:
        self.is_closed = True


def hashed(text: str, dimensions: int) -> np.ndarray:
    """A unit vector, float32, that only `text` has."""
    digest = hashlib.shake_256(text.encode()).digest(4 * dimensions)
    row = np.array(struct.unpack(f"<{dimensions}I", digest), dtype=np.float32) - np.float32(2**31)
    return row / np.linalg.norm(row)
