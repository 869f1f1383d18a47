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


def padded(token_ids: list[list[int]], *, length: int, pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`(input_ids, attention_mask)`, each of shape (len(token_ids), length); the mask is 1 where a row's own ids stand.

    Padding is always on the right, whatever the model's tokenizer says. On the left it would shift the positions of a short row by
    its neighbours' length; pooling finds the last token by the mask.
    """
    input_ids = np.full((len(token_ids), length), pad_id, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, ids in enumerate(token_ids):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return input_ids, attention_mask


class Encoder(Protocol):
    """Only ever called from one thread at a time."""

    info: EncoderInfo

    def embed(self, token_ids: list[list[int]]) -> NDArray[np.float32]:
        """One row a list of ids, special tokens included, none longer than `max_tokens`. Shape (n, dimensions), float32."""
