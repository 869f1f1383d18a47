"""A .npy file that grows. Its header has room for any number of rows, and is written over once that is known.

Source of the format: numpy.lib.format, version 1.0.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

MAGIC = b"\x93NUMPY\x01\x00"
HEADER_BYTES = 128
NUMBER_BYTES = 4


def header(num_rows: int, dimensions: int) -> bytes:
    """128 bytes, before rows of little-endian float32."""
    told = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({num_rows}, {dimensions}), }}".encode()
    padded = told.ljust(HEADER_BYTES - len(MAGIC) - 3) + b"\n"
    return MAGIC + len(padded).to_bytes(2, "little") + padded


def num_bytes(num_rows: int, dimensions: int) -> int:
    return HEADER_BYTES + num_rows * dimensions * NUMBER_BYTES


def blocks(path: Path, num_rows: int, dimensions: int, *, block_rows: int) -> Iterator[np.ndarray]:
    """The rows, some at a time: each of shape (at most block_rows, dimensions), float32. Raises OSError."""
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        for start in range(0, num_rows, block_rows):
            count = min(block_rows, num_rows - start)
            content = file.read(count * dimensions * NUMBER_BYTES)
            yield np.frombuffer(content, dtype="<f4").reshape(count, dimensions)
