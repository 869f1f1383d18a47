"""The Encoder protocol, a network on a device: token ids in, vectors out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.config import Task
from gateway.embedding.embedder import ModelKind
from gateway.embedding.sparse import TermJoin
from gateway.engine.shape_buckets import FREE, Shapes

Rows = Callable[[], NDArray[np.float32]]

CPU_LOGITS = 32 * 1024 * 1024  # of a sparse encoder's batch: 128 MB in float32, some 1,100 tokens over BERT's vocabulary


class OutOfMemory(Exception):
    """The device has too little memory for a batch. A smaller one may fit."""


@dataclass(frozen=True, slots=True)
class Window:
    """The token ids of one row, special tokens included.

    The network reads the first `num_prompt_tokens` like the others, but some models leave them out of pooling. `task` chooses
    among the routes of a model that has several; "" is its default route. Of a reranker's pair, the first `num_query_tokens` are
    the query's, special ones before the document included.
    """

    token_ids: list[int]
    num_prompt_tokens: int = 0
    task: Task | Literal[""] = ""
    num_query_tokens: int = 0

    def __len__(self) -> int:
        return len(self.token_ids)


class NetworkInfo(Struct, frozen=True, kw_only=True):
    """A network's properties, wherever it runs: read once from the model's files, stored in artifacts and sent between machines.

    `max_tokens` is the longest window, special tokens included. `prompts` and `default_prompt` come from the model's own files.
    `is_normalized`: its own modules give rows of length 1. `leaves_prompt_out`: prompt tokens are not pooled, and the network reads
    a third input, the mask of the tokens that are. `pooling` is sentence-transformers' word for how tokens become one row, "" if it
    is unknown. `tasks` are those with a route of their own; such a network's last input is each row's route.

    Of a reranker: `reads_token_types` means that the network reads a third input, which is 0 at the query's tokens and 1 at the
    document's. `pair_format` is the text that joins them in a model with a chat template: fixed parts and, between them, the names
    "instruction", "query" and "document"; the odd places are names. Without one, the tokenizer joins two texts.

    Of a sparse encoder: `dimensions` is the number of its terms, and `term_join` says how it pools the weights of tokens, and so of
    a long text's windows.
    """

    kind: ModelKind = "embedder"
    dimensions: int
    max_tokens: int
    pad_id: int = 0
    prompts: dict[str, str] = {}
    default_prompt: str = ""
    is_normalized: bool
    leaves_prompt_out: bool = False
    pooling: str = ""
    tasks: tuple[Task, ...] = ()
    reads_token_types: bool = False
    pair_format: tuple[str, ...] = ()
    term_join: TermJoin = "max"


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """A loaded network: its runtime, device and precision. `tokenizer_json` is its tokenizer in the format of `tokenizers`.

    `calibration` identifies the texts that an 8-bit network was calibrated with.
    `is_async`: it is an AsyncEncoder, which a device thread may give a batch while the one before it runs.
    """

    network: NetworkInfo
    tokenizer_json: str
    runtime: str
    device: str
    precision: str
    default_max_batch_tokens: int
    shapes: Shapes = FREE
    calibration: str = ""
    is_async: bool = False


def max_batch_tokens(network: NetworkInfo, usual: int, *, max_logits: int) -> int:
    """The tokens that a batch may have. A sparse encoder computes a number for each token and term: at most `max_logits`."""
    return usual if network.kind != "sparse_encoder" else max(1, min(usual, max_logits // network.dimensions))


def pad(windows: list[Window], *, length: int, network: NetworkInfo) -> list[NDArray[np.int64]]:
    """Pads windows to the inputs of `network`: input ids, attention mask, and those that only some networks read.

    These are the token types of pairs; the pooling mask of one that leaves prompts out; the route of each window, for one with
    routes: 0 for the default, else the place of its task, from 1.

    Padding is always on the right, whatever the model's tokenizer says. On the left it would shift the positions of a short row by
    its neighbours' length; pooling finds the last token by the mask.

    Returns arrays of shape (len(windows), length). A mask is 1 at a row's own ids; token types are 0 at padding.
    """
    input_ids = np.full((len(windows), length), network.pad_id, dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, window in enumerate(windows):
        input_ids[row, : len(window)] = window.token_ids
        attention_mask[row, : len(window)] = 1
    if network.reads_token_types:
        token_types = np.zeros_like(input_ids)
        for row, window in enumerate(windows):
            token_types[row, window.num_query_tokens : len(window)] = 1
        return [input_ids, attention_mask, token_types]
    arrays = [input_ids, attention_mask]
    if network.leaves_prompt_out:
        pooling_mask = attention_mask.copy()
        for row, window in enumerate(windows):
            pooling_mask[row, : window.num_prompt_tokens] = 0
        arrays.append(pooling_mask)
    if network.tasks:
        routes = np.zeros_like(input_ids)
        for row, window in enumerate(windows):
            routes[row] = 0 if window.task == "" else 1 + network.tasks.index(window.task)
        arrays.append(routes)
    return arrays


class Encoder(Protocol):
    """A network on a device. Only one thread at a time calls it."""

    info: EncoderInfo

    def embed(self, windows: list[Window]) -> NDArray[np.float32]:
        """Embeds windows of at most `max_tokens` each. Returns one row a window: shape (n, dimensions), float32.

        Raises OutOfMemory if the device has too little memory for the batch.
        """


class AsyncEncoder(Encoder, Protocol):
    """An encoder whose device works beside the thread that feeds it."""

    def launch(self, windows: list[Window]) -> Rows:
        """Pads a batch, begins its copy and queues its computation behind the batch before. Returns what waits for its rows.

        Either call raises what `embed` raises. Rows are waited for in the order of their launches.
        """
