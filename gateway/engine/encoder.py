"""What the device runs: token ids in, vectors out."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.engine.shapes import FREE, Shapes


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What a loaded network tells of itself.

    `max_tokens` is what it reads at once, special tokens included. `tokenizer_json` is its tokenizer as `tokenizers` reads it.
    `is_normalized` says that its own modules give rows of length 1. `pooling` and `prompts` go into the fingerprint.
    """

    dimensions: int
    max_tokens: int
    tokenizer_json: str
    prompts: dict[str, str]
    default_prompt: str
    is_normalized: bool
    runtime: str
    device: str
    precision: str
    default_max_batch_tokens: int
    shapes: Shapes = FREE


class Encoder(Protocol):
    """Only ever called from one thread at a time."""

    info: EncoderInfo

    def embed(self, token_ids: list[list[int]]) -> NDArray[np.float32]:
        """One row a list of ids, special tokens included, none longer than `max_tokens`. Shape (n, dimensions), float32."""
