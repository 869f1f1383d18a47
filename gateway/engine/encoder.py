"""What the device runs: token ids in, vectors out."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.config import Task
from gateway.engine.shape_buckets import FREE, Shapes


class OutOfMemory(Exception):
    """The device has no memory for a batch. A smaller one may fit."""


@dataclass(frozen=True, slots=True)
class Window:
    """What becomes one row: token ids, special ones included.

    The first `num_prompt_tokens` are read like the others, but left out of pooling, by models that do so. `task` chooses the
    route of a model that has several; "" is the model's default one.
    """

    token_ids: list[int]
    num_prompt_tokens: int = 0
    task: Task | Literal[""] = ""

    def __len__(self) -> int:
        return len(self.token_ids)


class NetworkInfo(Struct, frozen=True, kw_only=True):
    """What a network is, wherever it runs: read from the model's files once, then kept in artifacts and sent between machines.

    `max_tokens` is what it reads at once, special tokens included. `prompts` and `default_prompt` are those of the model's own
    files. `is_normalized` says that its own modules give rows of length 1, `leaves_prompt_out` that the tokens of a prompt are not
    pooled: the network then reads a third input, the mask of what is. `tasks` are those that it has routes of their own for.
    """

    dimensions: int
    max_tokens: int
    pad_id: int = 0
    prompts: dict[str, str] = {}
    default_prompt: str = ""
    is_normalized: bool
    leaves_prompt_out: bool = False
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """A network as it was loaded: by what, onto what. `tokenizer_json` is its tokenizer as `tokenizers` reads it."""

    network: NetworkInfo
    tokenizer_json: str
    runtime: str
    device: str
    precision: str
    default_max_batch_tokens: int
    shapes: Shapes = FREE


def pad(windows: list[Window], *, length: int, network: NetworkInfo) -> list[NDArray[np.int64]]:
    """What `network` reads: input ids, attention mask, and where prompts are left out the mask that pooling sees instead.

    Each has shape (len(windows), length); a mask is 1 where a row's own ids stand. Padding is always on the right, whatever the
    model's tokenizer says. On the left it would shift the positions of a short row by its neighbours' length; pooling finds the
    last token by the mask.
    """
    input_ids = np.full((len(windows), length), network.pad_id, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, window in enumerate(windows):
        input_ids[row, : len(window)] = window.token_ids
        attention_mask[row, : len(window)] = 1
    if not network.leaves_prompt_out:
        return [input_ids, attention_mask]
    pooling_mask = attention_mask.copy()
    for row, window in enumerate(windows):
        pooling_mask[row, : window.num_prompt_tokens] = 0
    return [input_ids, attention_mask, pooling_mask]


class Encoder(Protocol):
    """Only ever called from one thread at a time."""

    info: EncoderInfo

    def embed(self, windows: list[Window]) -> NDArray[np.float32]:
        """One row a window, none longer than `max_tokens`. Shape (n, dimensions), float32. Raises OutOfMemory."""
