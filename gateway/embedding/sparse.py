"""Sparse rows: of the weights of a whole vocabulary, only those that are not zero.

A row over 30,522 terms has 120 KB; SPLADE gives a text some hundred weights, which are 1 KB. Dense rows live no longer than the
batch that computed them.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from gateway.embedding.embedder import Description, Vectors
from gateway.embedding.vectors import Float32

# How the weights of a long text's windows are joined: as the model joins those of its tokens.
TermJoin = Literal["max", "sum"]
MAX_TERMS = 2**24  # a float32 holds every integer up to it
NO_ROWS: Float32 = np.zeros((0, 2), dtype=np.float32)


def sparse_row(weights: Float32) -> Float32:
    """The pairs of a term and its weight that are not zero, by term. Shape (k, 2) for `weights` of shape (terms,)."""
    terms = np.flatnonzero(weights)
    row: Float32 = np.empty((len(terms), 2), dtype=np.float32)
    row[:, 0], row[:, 1] = terms, weights[terms]
    return row


def _dense_row(row: Float32, num_terms: int) -> Float32:
    """The inverse of `sparse_row`."""
    weights: Float32 = np.zeros(num_terms, dtype=np.float32)
    weights[row[:, 0].astype(np.intp)] = row[:, 1]
    return weights


def dense_rows(vectors: Vectors, about: Description) -> Float32:
    """The vectors of a model that gives each text one row, shape (n, dimensions): a sparse encoder's with all the zeros."""
    if about.kind != "sparse_encoder":
        return vectors.rows
    return np.stack([_dense_row(row, about.dimensions) for row in vectors.by_input()])


def join_sparse_windows(windows: list[Float32], *, counts: list[int], join: TermJoin) -> list[Float32]:
    """A row for each input, of its windows' rows. `counts[i]` >= 1 windows belong to input i; an only one is kept as it is."""
    return [each[0] if len(each) == 1 else _joined(each, join) for each in _grouped(windows, counts)]


def _grouped(windows: list[Float32], counts: list[int]) -> Iterator[list[Float32]]:
    start = 0
    for count in counts:
        yield windows[start : start + count]
        start += count


def _joined(windows: list[Float32], join: TermJoin) -> Float32:
    pairs = np.concatenate(windows)
    terms, places = np.unique(pairs[:, 0], return_inverse=True)
    weights = np.zeros(len(terms), dtype=np.float32)
    (np.maximum if join == "max" else np.add).at(weights, places, pairs[:, 1])
    return np.stack([terms, weights], axis=1)
