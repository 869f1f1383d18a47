"""Scores of a reranker: probabilities back to logits, and scores as points, so that they are compared as vectors are. Pure.

The sigmoid of a logit is a probability; the logit of a probability is log(p / (1 - p)).
"""

import numpy as np
from numpy.typing import NDArray

from gateway.embedding.vectors import Float32

Float64 = NDArray[np.float64]

# Of 0 and 1 themselves, which have no finite logit: -87.3 and 36.7. Their sigmoids are 0 and 1 in float32, and no step of a float32
# sigmoid overflows. Everything between keeps its order.
LEAST, MOST = float(np.finfo(np.float32).tiny), 1 - 2.0**-53
ROUNDING = 1e-6  # that a probability may lie outside 0 to 1
LOGITS_PER_RADIAN = 4.0  # trained rerankers give logits of -11 to 11
OCTAVES = (1, 2, 4, 8)


def are_probabilities(scores: Float64 | Float32) -> bool:
    """Whether all may be probabilities."""
    return bool(((scores >= -ROUNDING) & (scores <= 1 + ROUNDING)).all())


def sigmoid(logits: Float64) -> Float64:
    """The probabilities of logits, without overflow."""
    found: Float64 = np.exp(-np.logaddexp(0.0, -logits))
    return found


def logits_of(probabilities: Float64) -> Float64:
    """The inverse of the sigmoid, finite everywhere: the sigmoid of the result, in float32, is the probability to 1e-7."""
    clipped = np.clip(probabilities, LEAST, MOST)
    found: Float64 = np.log(clipped) - np.log1p(-clipped)
    return found


def points(logits: Float32) -> Float32:
    """Logits of shape (n, 1) as points on a half circle: vectors of length 1, of two dimensions.

    So probes of a reranker have distances, noise and a signature as vectors have. 0.005 apart, the least that counts, are logits
    that differ by 0.02 near 0, and by 0.1 near 8, which is what half precision makes of them.
    """
    angles = np.arctan(logits.astype(np.float64) / LOGITS_PER_RADIAN)
    return _on_circle(angles, (1,))


def spread(rows: Float32) -> Float32:
    """Points of `points` as vectors of more dimensions, the sines and cosines of several multiples of their angles.

    A signature needs dimensions. Points a small distance d apart are d times `SPREAD` apart here.
    """
    return _on_circle(np.arctan2(rows[:, 1:], rows[:, :1]).astype(np.float64), OCTAVES)


SPREAD = float(np.sqrt(np.mean(np.square(OCTAVES))))


def _on_circle(angles: Float64, multiples: tuple[int, ...]) -> Float32:
    turned = angles * np.asarray(multiples, dtype=np.float64)
    found: Float32 = (np.concatenate([np.cos(turned), np.sin(turned)], axis=1) / np.sqrt(len(multiples))).astype(np.float32)
    return found
