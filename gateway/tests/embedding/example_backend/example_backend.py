"""What somebody writes who adds a backend: settings, an embedder, and the object that the entry point names."""

import hashlib
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Description, Health, Inputs, Prepared, Vectors
from gateway.embedding.vectors import normalize_rows
from gateway.errors import InputTooLong


class ExampleSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    dimensions: Annotated[int, Meta(ge=1, le=4096, description="Numbers in a vector.")] = 16
    salt: Annotated[str, Meta(description="Another salt gives other vectors.")] = ""


class ExampleEmbedder:
    """A text's vector is made of its hash; a byte is a token."""

    def __init__(self, settings: ExampleSettings, context: BackendContext) -> None:
        self.settings = settings
        self.context = context
        self.state = Health("loading")

    async def start(self) -> None:
        self.state = Health("ready")

    async def prepare(self, inputs: Inputs) -> Prepared:
        counts = [len(text.encode()) for text in inputs.texts]
        for index, count in enumerate(counts):
            if count > self.context.limits.max_input_tokens:
                raise InputTooLong(inputs.where(index), self.context.limits.max_input_tokens)
        return Prepared(inputs, counts, [False] * len(counts), inputs.long_input or "chunk")

    async def embed(self, prepared: Prepared) -> Vectors:
        return Vectors(normalize_rows(np.stack([self.hashed(text) for text in prepared.inputs.texts])))

    def hashed(self, text: str) -> np.ndarray:
        digest = hashlib.shake_256((self.settings.salt + text).encode()).digest(self.settings.dimensions)
        return np.frombuffer(digest, dtype=np.uint8).astype(np.float32) - 127.5

    def describe(self) -> Description:
        fingerprint = hashlib.sha256(f"{self.settings.dimensions} {self.settings.salt}".encode()).hexdigest()[:24]
        return Description(
            backend="example",
            source="example",
            dimensions=self.settings.dimensions,
            max_tokens=self.context.limits.max_input_tokens,
            long_input="chunk",
            fingerprint=f"{fingerprint}.example-float32",
            runtime="example",
            device="cpu",
            precision="float32",
            created=1_700_000_000,
        )

    def health(self) -> Health:
        return self.state

    async def close(self) -> None:
        self.state = Health("loading", "closed")


class ExampleBackend:
    name = "example"
    settings = ExampleSettings

    def build(self, settings: ExampleSettings, context: BackendContext) -> ExampleEmbedder:
        return ExampleEmbedder(settings, context)


backend = ExampleBackend()
