"""Probe texts, which show which vectors an upstream gives, and the comparison of two replies to them. Pure; knows no server.

The vectors of a reranker are the points of its scores (`scores.points`).

Distances are Euclidean, between vectors of length 1: 0.1414 is a cosine of 0.99.

    noise     the largest distance between replies to the same text, sent twice, alone and in a batch; at least NOISE_FLOOR
    same      no farther apart than the larger noise of the two
    another   farther apart than FAR on any text, or than the noise on all three texts
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gateway.embedding.vectors import Float32
from gateway.upstream.validation import MIN_LENGTH

NOISE_FLOOR = 0.005  # half precision in batches of changing size moves a vector by 0.001 to 0.003
FAR = 0.1414  # two precisions of one model are far closer, two models of one family are farther apart
# A reranker's scores, as points, in a request and alone: half precision moves them by 0.003, documents that it compares by more.
FAR_SCORES = 0.03
SAME_SCORE = 1e-6  # what float32 makes of one
UNIT_TOLERANCE = 0.002  # in half precision the length of a unit vector is this much off

# Three texts of different lengths and kinds. The first is short, as it is sent most often. PADDING makes a server pad the others.
TEXTS = (
    "Which vectors are these?",
    "The river rose above its banks after a night of rain, and the road to the village was closed until noon.",
    "for (int i = 0; i < n; ++i) { total += prices[i] * 1.19; }",
)
PADDING = " ".join(["A longer text stands beside the others, so that whoever pads them to one length has something to pad."] * 3)
COMPANY = (*TEXTS, PADDING)
# A reranker compares the texts with it: the second answers it, the others do not.
QUERY = "Why was the road to the village closed?"


@dataclass(frozen=True, slots=True)
class Reference:
    """An upstream's vectors of TEXTS: `rows` have shape (3, dimensions) and length 1; `noise` is how far its replies lie apart."""

    rows: Float32
    noise: float

    @property
    def tolerance(self) -> float:
        return max(NOISE_FLOOR, self.noise)


def unit(rows: Float32) -> Float32:
    """Divides each row by its length, computed in float64: squares in float32 overflow and underflow."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    divided: Float32 = (rows / np.maximum(lengths, MIN_LENGTH)).astype(np.float32)
    return divided


def distances(some: Float32, others: Float32) -> Float32:
    """Euclidean distances, row by row. Returns infinity for all if the dimensions differ."""
    if some.shape[-1] != others.shape[-1]:
        return np.full(len(some), np.inf, dtype=np.float32)
    found: Float32 = np.linalg.norm(some - others, axis=-1)
    return found


def is_other(apart: Float32, tolerance: float) -> bool:
    """Whether the distances of three texts show another model."""
    return bool((apart > max(FAR, tolerance)).any() or (apart > tolerance).all())


def are_same(one: Reference, other: Reference) -> bool:
    return not is_other(distances(one.rows, other.rows), max(one.tolerance, other.tolerance))


def build_reference(answers: list[list[Float32]]) -> Reference:
    """Builds a Reference from several replies to each text: their mean direction, and how far they lie apart."""
    noise = max((float(np.linalg.norm(a - b)) for replies in answers for a, b in combinations(replies, 2)), default=0.0)
    return Reference(unit(np.stack([np.mean(replies, axis=0) for replies in answers])), noise)


def fault_of(reference: Reference, *, is_reranker: bool = False) -> str | None:
    """Returns why no embedder, or no reranker, can give these vectors, for the operator; None if one can."""
    if is_reranker:  # two texts of no relevance may well have one score
        apart = max(float(np.linalg.norm(a - b)) for a, b in combinations(reference.rows, 2))
        return "it gives every document the same score" if apart <= max(reference.noise, SAME_SCORE) else None
    for (i, one), (j, other) in combinations(enumerate(reference.rows), 2):
        apart = float(np.linalg.norm(one - other))
        if apart <= reference.tolerance:
            return (
                f"it gives different texts one and the same vector (the {ORDINALS[i]} and the {ORDINALS[j]} probe lie"
                f" {apart:.2g} apart, and its noise is {reference.tolerance:.2g})"
            )
    return None


ORDINALS = ("first", "second", "third")
