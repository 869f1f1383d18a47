"""Random-projection signature (SimHash, Charikar 2002): 32 bits of an upstream's vectors, so coarse that noise rarely changes one.

Each bit says on which side of a fixed random plane the probes' vectors lie, concatenated to one vector. Two replies at a distance d
fall on different sides of a plane with probability d / pi, the least that any bit can have. So noise of 0.0005 flips a bit for one
gateway in two hundred, and another model flips about sixteen of 32. A bit is `unsure` if the vector lies within the noise of its
plane: a pinned fingerprint that differs only in such bits is the same.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.upstream.probe import Reference
from gateway.upstream.scores import SPREAD, spread

NUM_BITS = 32
SEED = b"embeddings-gateway: signature"  # changing it changes every fingerprint of every upstream
MAX_UNSURE = 3
POINT_DIMENSIONS = 2  # of a reranker's points; no embedder has so few


@dataclass(frozen=True, slots=True)
class _Signature:
    """`bits` prints as eight hex digits; `unsure` are the positions of the bits, at most MAX_UNSURE, that noise may flip."""

    bits: int
    unsure: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.bits:08x}"

    @property
    def alike(self) -> list[str]:
        """The signatures that noise may make of this one, itself first."""
        found = [self.bits]
        for position in self.unsure:
            found += [bits ^ 1 << position for bits in found]
        return [f"{bits:08x}" for bits in found]


def signature_of(reference: Reference) -> _Signature:
    """Computes the signature of a reference. Signatures of vectors of different dimensions are unrelated."""
    is_reranker = reference.rows.shape[1] == POINT_DIMENSIONS
    rows = (spread(reference.rows) if is_reranker else reference.rows).astype(np.float64).ravel()
    sides = _planes(len(rows)) @ (rows / np.linalg.norm(rows))
    noise = reference.tolerance * (SPREAD if is_reranker else 1.0)
    reach = 2 * noise / np.sqrt(len(rows))  # noise spreads over all directions: two of its standard deviations
    by_doubt = [int(position) for position in np.argsort(np.abs(sides)) if abs(sides[position]) <= reach]
    return _Signature(sum(1 << position for position, side in enumerate(sides) if side > 0), tuple(by_doubt[:MAX_UNSURE]))


def _planes(size: int) -> NDArray[np.float64]:
    """The planes' normals, shape (NUM_BITS, size), of length 1, every component of one magnitude. SHAKE-256 fixes them for ever."""
    stream = hashlib.shake_256(SEED).digest((NUM_BITS * size + 7) // 8)
    signs = np.unpackbits(np.frombuffer(stream, dtype=np.uint8), count=NUM_BITS * size).reshape(NUM_BITS, size)
    normals: NDArray[np.float64] = (2.0 * signs - 1.0) / np.sqrt(size)
    return normals
