"""An append-only .npy file. Its header has room for any number of rows, and is rewritten once the number is known.

Source of the format: numpy.lib.format, version 1.0.
"""

from pathlib import Path

import numpy as np

MAGIC = b"\x93NUMPY\x01\x00"
HEADER_BYTES = 128
NUMBER_BYTES = 4


def header(num_rows: int, dimensions: int) -> bytes:
    """Returns the header of 128 bytes. Rows of little-endian float32 follow it."""
    told = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({num_rows}, {dimensions}), }}".encode()
    padded = told.ljust(HEADER_BYTES - len(MAGIC) - 3) + b"\n"
    return MAGIC + len(padded).to_bytes(2, "little") + padded


def num_bytes(num_rows: int, dimensions: int) -> int:
    return HEADER_BYTES + num_rows * dimensions * NUMBER_BYTES


class Rows:
    """Reads the rows in order. Raises OSError."""

    def __init__(self, path: Path, dimensions: int) -> None:
        self.dimensions = dimensions
        self.file = path.open("rb")
        self.file.seek(HEADER_BYTES)

    def take(self, count: int) -> np.ndarray:
        """Returns the next `count` rows, of shape (count, dimensions), float32."""
        content = self.file.read(count * self.dimensions * NUMBER_BYTES)
        return np.frombuffer(content, dtype="<f4").reshape(count, self.dimensions)

    def close(self) -> None:
        self.file.close()
