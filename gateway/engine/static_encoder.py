"""The Encoder of a static model: numpy alone, on the CPU. Token ids to the mean of their vectors."""

from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gateway.engine.encoder import EncoderInfo, Window
from gateway.engine.shape_buckets import UNPADDED
from gateway.engine.static_model import StaticModel

BATCH_TOKENS = 16_384  # some 4 ms of work: a short query waits for no more than one batch
CACHE_NUMBERS = 32_768  # of a group's sums, 128 KB: each step adds to all of them, so they must stay in the core's cache
LONG_TOKENS = 64  # a longer text is summed by itself
SLICE_TOKENS = 512  # of a long text: bounds the memory of its vectors, and the error of a long sum in float32
TINY = 1e-12  # as in torch.nn.functional.normalize: the least length that divides

RUNTIME, PRECISION = "numpy", "float32"


class StaticEncoder:
    """Sums are in float32, whatever the type of the table."""

    def __init__(self, model: StaticModel) -> None:
        self.model = model
        self.info = EncoderInfo(
            network=model.network,
            tokenizer_json=model.tokenizer_json,
            runtime=RUNTIME,
            device="cpu",
            precision=PRECISION,
            default_max_batch_tokens=BATCH_TOKENS,
            shapes=UNPADDED,
        )

    def embed(self, windows: list[Window]) -> NDArray[np.float32]:
        ids = np.fromiter(chain.from_iterable([window.token_ids for window in windows]), dtype=np.int64)
        lengths = np.fromiter(map(len, windows), dtype=np.int64, count=len(windows))
        if self.model.left_out is not None:
            counted = ids != self.model.left_out
            lengths = np.add.reduceat(np.append(counted, 0), np.cumsum(lengths) - lengths) * (lengths > 0)
            ids = ids[counted]
        rows = self.sums(ids, lengths)
        rows /= np.maximum(lengths, 1)[:, None]
        if self.model.is_unit:
            rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)
        return rows[:, : self.info.network.dimensions]

    def sums(self, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        """The sum of each text's vectors, shape (len(lengths), dimensions). `ids` are those of all texts, one after another."""
        starts = np.cumsum(lengths) - lengths
        width = self.model.table.rows.shape[1]
        sums = np.zeros((len(lengths), width), dtype=np.float32)
        for text in np.flatnonzero(lengths > LONG_TOKENS):
            sums[text] = self.long_sum(ids[starts[text] : starts[text] + lengths[text]])
        short = np.flatnonzero((lengths > 0) & (lengths <= LONG_TOKENS))
        short = short[np.argsort(-lengths[short], kind="stable")]
        step = max(1, CACHE_NUMBERS // width)
        for first in range(0, len(short), step):
            texts = short[first : first + step]
            sums[texts] = self.sorted_sums(ids, starts[texts], lengths[texts])
        return sums

    def sorted_sums(self, ids: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        """Sums of texts, the longest first: adds the first tokens of all, then the second of those that have one, and so on."""
        sums = self.model.table.of_tokens(ids[starts])
        for position in range(1, int(lengths[0])):
            num_texts = int(np.searchsorted(-lengths, -position, side="left"))
            sums[:num_texts] += self.model.table.of_tokens(ids[starts[:num_texts] + position])
        return sums

    def long_sum(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        slices = (ids[start : start + SLICE_TOKENS] for start in range(0, len(ids), SLICE_TOKENS))
        sums: NDArray[np.float32] = np.sum([self.model.table.of_tokens(part).sum(axis=0) for part in slices], axis=0)
        return sums
