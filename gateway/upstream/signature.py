"""Random-projection signature (SimHash, Charikar 2002): 32 bits of which vectors an upstream gives, coarse enough to be alike.

Each bit is the side of a fixed random plane on which the probes' vectors lie, all of them taken as one. Two answers at a distance d
of each other fall on different sides of one plane with probability d / pi, the least that any bit can have: noise of 0.0005 turns
a bit of one gateway in two hundred, another model turns about sixteen of 32. What lies within the noise of a plane is `unsure`:
a pinned fingerprint that differs in such bits alone is the same.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.upstream.probe import Reference

NUM_BITS = 32
SEED = b"embeddings-gateway: signature"  # changing it changes every fingerprint of every upstream
MAX_UNSURE = 3


@dataclass(frozen=True, slots=True)
class Signature:
    """`bits` as eight hex digits; `unsure` are the positions of the bits, at most MAX_UNSURE, that noise may turn."""

    bits: int
    unsure: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.bits:08x}"

    @property
    def alike(self) -> list[str]:
        """As noise may make it, this one first."""
        found = [self.bits]
        for position in self.unsure:
            found += [bits ^ 1 << position for bits in found]
        return [f"{bits:08x}" for bits in found]


def signature_of(reference: Reference) -> Signature:
    """Of vectors that differ in dimensions the signatures have nothing to do with each other."""
    rows = reference.rows.astype(np.float64).ravel()
    sides = planes(len(rows)) @ (rows / np.linalg.norm(rows))
    reach = 2 * reference.tolerance / np.sqrt(len(rows))  # noise spreads over all directions: two of its standard deviations
    by_doubt = [int(position) for position in np.argsort(np.abs(sides)) if abs(sides[position]) <= reach]
    return Signature(sum(1 << position for position, side in enumerate(sides) if side > 0), tuple(by_doubt[:MAX_UNSURE]))


def planes(size: int) -> NDArray[np.float64]:
    """Shape (NUM_BITS, size): their normals, of length 1, every component of one size. SHAKE-256 gives the same for ever."""
    stream = hashlib.shake_256(SEED).digest((NUM_BITS * size + 7) // 8)
    signs = np.unpackbits(np.frombuffer(stream, dtype=np.uint8), count=NUM_BITS * size).reshape(NUM_BITS, size)
    normals: NDArray[np.float64] = (2.0 * signs - 1.0) / np.sqrt(size)
    return normals
