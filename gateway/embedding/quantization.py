"""Scalar and binary quantization: vectors of one byte or one bit a dimension, exactly as sentence-transformers 6 makes them.

Source: `quantize_embeddings` in sentence_transformers/util/quantization.py. int8 and uint8 cut the range of each dimension into 255
steps; the ranges are fixed for a model, because vectors of other ranges cannot be compared. binary needs no ranges.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gateway.config import OutputDtype
from gateway.embedding.fingerprint import digest

Float32 = NDArray[np.float32]

NUM_STEPS = 255
SIGN_BIT = np.uint8(0x80)  # ubinary with it flipped is binary: 128 less, as int8
MAX_FLOAT16 = np.float32(65504)
RANGED: frozenset[OutputDtype] = frozenset({"int8", "uint8"})
ID_CHARS = 16


@dataclass(frozen=True, slots=True)
class Ranges:
    """The smallest and the largest value of each dimension. `id` is a digest of them: codes of two ids cannot be compared.

    `bounds` are the bytes of a little-endian float32 array of shape (2, dimensions), sentence-transformers' `ranges`.
    """

    id: str
    bounds: bytes

    @property
    def array(self) -> Float32:
        """Shape (2, dimensions), float32: first the minima, then the maxima."""
        return np.frombuffer(self.bounds, dtype="<f4").reshape(2, -1)

    @property
    def dimensions(self) -> int:
        return len(self.bounds) // 8


def ranges_of(minima: ArrayLike, maxima: ArrayLike) -> Ranges:
    """The ranges with these bounds, each of shape (dimensions,). Raises ValueError if one is not finite or not in order."""
    bounds = np.stack([np.asarray(minima, dtype="<f4"), np.asarray(maxima, dtype="<f4")])
    with np.errstate(over="ignore"):
        widths = bounds[1] - bounds[0]
    if bounds.ndim != 2 or not np.isfinite([*bounds, widths]).all() or (widths < 0).any():  # noqa: PLR2004 - a row of each
        raise ValueError("a range is two finite numbers, the smaller one first")
    return Ranges(digest(bounds.tobytes())[:ID_CHARS], bounds.tobytes())


def dtype_of(dtype: OutputDtype) -> np.dtype[Any]:
    """The type of the numbers that `quantize` gives, little-endian."""
    return np.dtype({"float": "<f4", "float16": "<f2", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}[dtype])


def width_of(dtype: OutputDtype, dimensions: int) -> int:
    """How many numbers a row has."""
    return -(-dimensions // 8) if dtype in {"binary", "ubinary"} else dimensions


def quantize(rows: Float32, dtype: OutputDtype, ranges: Ranges | None = None) -> NDArray[Any]:
    """The rows in another type. `rows` has shape (n, d), float32, finite.

    * float: the rows themselves. float16: rounded to the nearest; what is beyond its largest number becomes that.
    * int8, uint8: shape (n, d). The range of a dimension is cut into 255 steps, numbered from -128 or 0; values outside the range
      become its ends. sentence-transformers before 6 does not clip: there such a value wraps around to the other end. `ranges`
      have d dimensions.
    * binary, ubinary: shape (n, ceil(d / 8)). A bit is 1 for a value above 0; the first dimension is the highest bit of the first
      byte, and missing dimensions are 0. binary is ubinary minus 128, as int8.
    """
    if dtype == "float":
        return rows
    if dtype == "float16":
        return np.clip(rows, -MAX_FLOAT16, MAX_FLOAT16).astype("<f2")
    if dtype in RANGED:
        if ranges is None:
            raise RuntimeError(f"{dtype} needs ranges")
        return _scalar_codes(rows, dtype, ranges.array)
    bits = np.packbits(rows > 0, axis=-1)
    return bits if dtype == "ubinary" else (bits ^ SIGN_BIT).view(np.int8)


def _scalar_codes(rows: Float32, dtype: OutputDtype, bounds: Float32) -> NDArray[Any]:
    starts = bounds[0]
    steps = (bounds[1] - starts) / NUM_STEPS
    steps = np.where(steps == 0, np.float32(1), steps)
    with np.errstate(over="ignore"):  # an infinite quotient is outside the range, as any other large one
        codes: Float32 = np.clip(np.floor((rows - starts) / steps), 0, NUM_STEPS)
    return codes.astype(np.uint8) if dtype == "uint8" else (codes - 128).astype(np.int8)
