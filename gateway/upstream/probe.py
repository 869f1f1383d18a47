"""What an upstream is asked to find out which vectors it gives, and how two answers are compared. Pure; knows no server.

Distances are Euclidean, between vectors of length 1: 0.1414 is a cosine of 0.99.

    noise      the largest distance between answers to the same text: asked twice, alone and in company; never below NOISE_FLOOR
    the same   not farther apart than the noise of either
    another    farther than FAR, on any text; between noise and FAR, three different texts decide: all three must differ
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gateway.embedding.vectors import Float32
from gateway.upstream.validation import MIN_LENGTH

NOISE_FLOOR = 0.005  # half precision in batches of changing size moves a vector by 0.001 to 0.003
FAR = 0.1414  # two precisions of one model lie far below, a neighbour of the same family above
UNIT_TOLERANCE = 0.002  # in half precision a vector of length 1 is this much off

# Three texts of different lengths and kinds; the first is asked again and again, so it is short. The last pads the others.
TEXTS = (
    "Which vectors are these?",
    "The river rose above its banks after a night of rain, and the road to the village was closed until noon.",
    "for (int i = 0; i < n; ++i) { total += prices[i] * 1.19; }",
)
PADDING = " ".join(["A longer text stands beside the others, so that whoever pads them to one length has something to pad."] * 3)
COMPANY = (*TEXTS, PADDING)


@dataclass(frozen=True, slots=True)
class Reference:
    """What an upstream answers: `rows` to TEXTS, shape (3, dimensions), of length 1, and how far its answers lie apart."""

    rows: Float32
    noise: float

    @property
    def tolerance(self) -> float:
        return max(NOISE_FLOOR, self.noise)


def unit(rows: Float32) -> Float32:
    """Each row divided by its length, reckoned in float64: the squares of float32 overflow, and vanish."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    divided: Float32 = (rows / np.maximum(lengths, MIN_LENGTH)).astype(np.float32)
    return divided


def distances(some: Float32, others: Float32) -> Float32:
    """Row by row. Infinite where the dimensions differ."""
    if some.shape[-1] != others.shape[-1]:
        return np.full(len(some), np.inf, dtype=np.float32)
    found: Float32 = np.linalg.norm(some - others, axis=-1)
    return found


def is_other(apart: Float32, tolerance: float) -> bool:
    """Whether three texts so far apart are another model's."""
    return bool((apart > max(FAR, tolerance)).any() or (apart > tolerance).all())


def are_same(one: Reference, other: Reference) -> bool:
    return not is_other(distances(one.rows, other.rows), max(one.tolerance, other.tolerance))


def build_reference(answers: list[list[Float32]]) -> Reference:
    """What was answered to each text, several times: its mean direction, and how far the answers lie apart."""
    noise = max((float(np.linalg.norm(a - b)) for told in answers for a, b in combinations(told, 2)), default=0.0)
    return Reference(unit(np.stack([np.mean(told, axis=0) for told in answers])), noise)


def fault_of(reference: Reference) -> str | None:
    """Why these are no embedder's vectors, for the operator; None where they may be."""
    for (i, one), (j, other) in combinations(enumerate(reference.rows), 2):
        apart = float(np.linalg.norm(one - other))
        if apart <= reference.tolerance:
            return (
                f"it gives different texts one and the same vector (the {ORDINALS[i]} and the {ORDINALS[j]} probe lie"
                f" {apart:.2g} apart, and its noise is {reference.tolerance:.2g})"
            )
    return None


ORDINALS = ("first", "second", "third")
