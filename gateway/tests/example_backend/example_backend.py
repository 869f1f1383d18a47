"""A complete backend: its settings, its embedder, and the object that the entry point names."""

import hashlib
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from gateway.backend import (
    Backend,
    BackendContext,
    Description,
    Fingerprint,
    Health,
    Inputs,
    InputTooLong,
    Prepared,
    RequestTooLong,
    Secret,
    Vectors,
    digest,
    normalize_rows,
    refuse_no_vector,
    secret_value,
)


class ExampleSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    dimensions: Annotated[int, Meta(ge=1, le=4096, description="Numbers in a vector.")] = 16
    salt: Annotated[Secret | None, Meta(description="Another salt gives other vectors.")] = None


class ExampleEmbedder:
    """A text's vector is made of its hash; a byte is a token. Follows Embedder."""

    def __init__(self, settings: ExampleSettings, context: BackendContext) -> None:
        self.settings = settings
        self.limits = context.limits
        self.state = Health("loading", "not started")

    async def start(self) -> None:
        self.salt = salt_of(self.settings)
        self.state = Health("ready")

    async def prepare(self, inputs: Inputs) -> Prepared[list[bytes]]:
        """The work is the texts as bytes."""
        contents = [text.encode() for text in inputs.texts]
        counts = [len(content) for content in contents]
        for index, count in enumerate(counts):
            if count > self.limits.max_input_tokens:
                raise InputTooLong(inputs.where(index), self.limits.max_input_tokens)
        if sum(counts) > self.limits.max_request_tokens:
            raise RequestTooLong(str(sum(counts)), self.limits.max_request_tokens)
        return Prepared(inputs, counts, [False] * len(counts), inputs.long_input or "chunk", work=contents)

    async def embed(self, prepared: Prepared[list[bytes]]) -> Vectors:
        rows = np.stack([self.hashed(content) for content in prepared.work])
        refuse_no_vector(rows, prepared.inputs)
        return Vectors(normalize_rows(rows) if prepared.inputs.normalize else rows)

    def hashed(self, content: bytes) -> NDArray[np.float32]:
        raw = hashlib.shake_256(self.salt.encode() + content).digest(self.settings.dimensions)
        return np.frombuffer(raw, dtype=np.uint8).astype(np.float32) - 127.5

    def describe(self) -> Description:
        """Whatever changes a vector is in the fingerprint."""
        fingerprint = Fingerprint(
            weights=digest(self.settings.dimensions, self.salt),
            tokenizer=digest("bytes"),
            pooling=digest(),
            prompts=digest(),
            long_input=digest("chunk"),
            runtime="example-float32",
        )
        return Description(
            backend="example",
            source="hashes",
            dimensions=self.settings.dimensions,
            max_tokens=self.limits.max_input_tokens,
            long_input="chunk",
            fingerprint=str(fingerprint),
            runtime="example",
            device="cpu",
            precision="float32",
            created=1_700_000_000,
        )

    def health(self) -> Health:
        return self.state

    async def close(self) -> None:
        self.state = Health("failed", "closed")


class ExampleBackend(Backend):
    name = "example"
    settings = ExampleSettings

    def build(self, settings: ExampleSettings, context: BackendContext) -> ExampleEmbedder:
        return ExampleEmbedder(settings, context)

    def check(self, settings: ExampleSettings, context: BackendContext) -> None:
        """Raises ConfigurationError if the salt cannot be read; `gateway config check` reports it."""
        salt_of(settings)


def salt_of(settings: ExampleSettings) -> str:
    return secret_value(settings.salt) if settings.salt is not None else ""


backend = ExampleBackend()
