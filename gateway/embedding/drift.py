"""Drift between the vectors of two models: whether an index made with one may be searched with the other."""

from dataclasses import dataclass

import numpy as np

from gateway.embedding.vectors import Float32

NUM_NEIGHBOURS = 10
# Two precisions of one model exceed both (bfloat16 against float32: 0.9999 and 99.3 %); another model is far below.
MIN_COSINE, MIN_KEPT = 0.999, 0.97


@dataclass(frozen=True, slots=True)
class Drift:
    """Cosines between the two models' vectors of the same texts, None if dimensions differ.

    `kept` is the share of each text's nearest neighbours that are the same in both.
    """

    num_texts: int
    mean_cosine: float | None
    worst_cosine: float | None
    kept: float

    @property
    def is_interchangeable(self) -> bool:
        return self.worst_cosine is not None and self.worst_cosine >= MIN_COSINE and self.kept >= MIN_KEPT


def measure_drift(first: Float32, second: Float32) -> Drift:
    """Both have shape (n, dimensions), of the same n texts, n above NUM_NEIGHBOURS. Lengths do not matter: rows are normalised.

    Two rows of zeros are equal: a sparse encoder may have no weight for a text.
    """
    first, second = unit(first), unit(second)
    same_width = first.shape[1] == second.shape[1]
    is_zero = ~(first.any(axis=1) | second.any(axis=1))
    cosines = np.where(is_zero, np.float32(1), (first * second).sum(axis=1)) if same_width else None
    return Drift(
        num_texts=len(first),
        mean_cosine=float(cosines.mean()) if cosines is not None else None,
        worst_cosine=float(cosines.min()) if cosines is not None else None,
        kept=neighbours_kept(first, second),
    )


def neighbours_kept(first: Float32, second: Float32) -> float:
    """The mean share of a text's NUM_NEIGHBOURS nearest neighbours by cosine that both have. Rows are of length 1."""
    pairs = zip(nearest(first), nearest(second), strict=True)
    return float(np.mean([len(set(a) & set(b)) / NUM_NEIGHBOURS for a, b in pairs]))


def nearest(rows: Float32) -> list[list[int]]:
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    found: list[list[int]] = np.argsort(-similarity, axis=1, kind="stable")[:, :NUM_NEIGHBOURS].tolist()
    return found


def unit(rows: Float32) -> Float32:
    result: Float32 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return result
