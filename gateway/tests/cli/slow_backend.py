"""A backend for runs that are to be killed: it takes its time, and a text has other last bits in other company, as in networks."""

import asyncio
import hashlib

import numpy as np
from msgspec import Struct

from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Description, Health, Inputs, Prepared, Vectors
from gateway.errors import Unembeddable


class SlowSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    dimensions: int = 8
    seconds: float = 0.0
    weights: str = "a"


class Slow:
    def __init__(self, settings: SlowSettings) -> None:
        self.settings = settings

    async def start(self) -> None:
        """Nothing is to be loaded."""

    async def prepare(self, inputs: Inputs) -> Prepared:
        return Prepared(inputs, [len(text.split()) for text in inputs.texts], [False] * len(inputs.texts), "chunk")

    async def embed(self, prepared: Prepared) -> Vectors:
        texts = prepared.inputs.texts
        await asyncio.sleep(self.settings.seconds)
        if "poison" in texts:
            raise Unembeddable(prepared.inputs.where(texts.index("poison")))
        company = hashed("\n".join(texts), self.settings.dimensions) / 1000
        return Vectors(np.stack([hashed(text, self.settings.dimensions) for text in texts]) + company)

    def describe(self) -> Description:
        weights = hashlib.sha256(self.settings.weights.encode()).hexdigest()[:8]
        return Description(
            backend="slow", source="slow", dimensions=self.settings.dimensions, max_tokens=256, long_input="chunk",
            fingerprint=f"{weights}{'0' * 16}.slow-float32", runtime="slow", device="cpu", precision="float32", created=0,
        )  # fmt: skip

    def health(self) -> Health:
        return Health("ready")

    async def close(self) -> None:
        """Nothing is held."""


class SlowBackend:
    name = "slow"
    settings = SlowSettings

    def build(self, settings: SlowSettings, context: BackendContext) -> Slow:
        return Slow(settings)


def hashed(text: str, dimensions: int) -> np.ndarray:
    digest = hashlib.shake_256(text.encode()).digest(dimensions)
    return (np.frombuffer(digest, dtype=np.uint8).astype(np.float32) - 127.5) / 256


backend = SlowBackend()
