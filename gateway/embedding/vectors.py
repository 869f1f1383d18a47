"""Operations on the vectors of any backend: joining windows, cutting dimensions, normalising to length 1."""

import numpy as np
from numpy.typing import NDArray

from gateway.embedding.embedder import MAX_NUMBERS, Inputs, ModelKind
from gateway.errors import InvalidValue, Unembeddable

Float32 = NDArray[np.float32]

UNIT_TOLERANCE = np.float32(1e-6)
LAYER_NORM_EPSILON = np.float32(1e-5)  # torch's own default
ALL_ZERO = "it gave a vector of zeros"
TINY = np.float32(1e-12)  # torch's own floor in `normalize`: a zero vector stays zero instead of becoming NaN


def normalize_rows(rows: Float32) -> Float32:
    """Each row divided by its Euclidean length. Shape (n, d), dtype float32, like `rows`."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Float32 = rows / np.maximum(lengths, TINY)
    return unit


def scale_to_unit(rows: Float32) -> Float32:
    """As `normalize_rows`, but a row that already has length 1, to 1e-6, is returned bit for bit.

    Lengths are computed in float64: the square of a float32 may overflow or underflow in float32.
    """
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    is_unit = np.abs(lengths - 1) <= UNIT_TOLERANCE
    return rows if is_unit.all() else np.where(is_unit, rows, (rows / np.maximum(lengths, TINY)).astype(np.float32))


def join_windows(windows: Float32, *, counts: list[int], weights: list[int]) -> Float32:
    """One row for each input: the average of its windows' rows by `weights`. An input of one window keeps its row bit for bit.

    `windows` has shape (sum(counts), d); `counts[i]` >= 1 windows belong to input i; `weights` has a token count for each window.
    """
    if len(counts) == len(windows):
        return windows
    starts = np.cumsum([0, *counts[:-1]])
    weight = np.maximum(np.asarray(weights, dtype=np.float32), 1)[:, None]
    means = np.add.reduceat(windows * weight, starts, axis=0) / np.add.reduceat(weight, starts, axis=0)
    is_single = np.asarray(counts)[:, None] == 1
    return np.where(is_single, windows[starts], means).astype(np.float32, copy=False)


def best_windows(windows: Float32, *, counts: list[int]) -> Float32:
    """One row for each input of a reranker: the largest score of its windows. The arguments are those of `join_windows`."""
    if len(counts) == len(windows):
        return windows
    best: Float32 = np.maximum.reduceat(windows, np.cumsum([0, *counts[:-1]]), axis=0)
    return best


def is_vector(rows: Float32) -> NDArray[np.bool_]:
    """Whether each row is a usable vector: finite, and not all zeros, which has no direction and no cosine. Shape (n,)."""
    finite: NDArray[np.bool_] = np.isfinite(rows)
    nonzero: NDArray[np.bool_] = rows != 0
    return np.logical_and(finite.all(axis=1), nonzero.any(axis=1))


def _is_score(rows: Float32) -> NDArray[np.bool_]:
    """Whether each row is a usable score: finite. A logit of 0 is one. Shape (n,)."""
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(rows), axis=1)
    return finite


def are_usable(rows: Float32, kind: ModelKind) -> bool:
    """Whether all rows are usable, as `is_usable` tells it of each."""
    if kind in {"embedder", "multi_vector_encoder"} and (square := np.vdot(rows, rows)) < np.inf:  # all are finite
        return (len(rows) == 1 and bool(square > 0)) or bool(rows.any(axis=1).all())
    return bool(is_usable(rows, kind).all())


def is_usable(rows: Float32, kind: ModelKind) -> NDArray[np.bool_]:
    """Whether each row of a model of this kind is usable. Shape (n,). A text may have no weight at all for a sparse encoder."""
    return _is_score(rows) if kind in {"reranker", "sparse_encoder"} else is_vector(rows)


def refuse_no_vector(rows: Float32, inputs: Inputs) -> None:
    """Raises Unembeddable for the first row that is not a usable vector, or, if the inputs have a query, not a usable score."""
    kind: ModelKind = "embedder" if inputs.query is None else "reranker"
    if not are_usable(rows, kind):
        index = int(np.argmin(is_usable(rows, kind)))
        raise Unembeddable(inputs.where(index), *([] if rows[index].any() else [ALL_ZERO]))


def too_many_numbers() -> InvalidValue:
    """The error for a request whose inputs have any number of rows, and more than MAX_NUMBERS numbers in all of them."""
    return InvalidValue(
        f"Invalid 'input': its texts have more than {MAX_NUMBERS} numbers in all, too many for one reply. Send fewer texts.",
        param="input",
    )


def truncate(rows: Float32, dimensions: int | None, *, normalize: bool, layer_norm: bool = False) -> Float32:
    """The first `dimensions` components, scaled to length 1 again if `normalize`. None or all of them changes nothing.

    With `layer_norm` they are cut from each row's layer norm, without weights, over all of its components. Some Matryoshka models
    were trained for that (nomic-embed-text-v1.5's card).
    """
    if dimensions is None or dimensions == rows.shape[1]:
        return rows
    if layer_norm:
        variance = rows.var(axis=1, keepdims=True)
        rows = ((rows - rows.mean(axis=1, keepdims=True)) / np.sqrt(variance + LAYER_NORM_EPSILON)).astype(np.float32, copy=False)
    return normalize_rows(rows[:, :dimensions]) if normalize else rows[:, :dimensions]
