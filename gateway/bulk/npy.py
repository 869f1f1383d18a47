"""An append-only .npy file. Its header has room for any number of rows, and is rewritten once the number is known.

Source of the format: numpy.lib.format, version 1.0.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gateway.config import OutputDtype
from gateway.embedding.quantization import dtype_of, width_of

MAGIC = b"\x93NUMPY\x01\x00"
HEADER_BYTES = 128


@dataclass(frozen=True, slots=True)
class RowType:
    """A row's numbers: `width` of them, little-endian. Of binary and ubinary each has eight dimensions."""

    dtype: np.dtype[Any]
    width: int

    @classmethod
    def of(cls, dtype: OutputDtype, dimensions: int) -> "RowType":
        return cls(dtype_of(dtype), width_of(dtype, dimensions))

    @property
    def num_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    def header(self, num_rows: int) -> bytes:
        """Returns the header of 128 bytes. The rows follow it."""
        description = f"{{'descr': '{self.dtype.str}', 'fortran_order': False, 'shape': ({num_rows}, {self.width}), }}".encode()
        padded = description.ljust(HEADER_BYTES - len(MAGIC) - 3) + b"\n"
        return MAGIC + len(padded).to_bytes(2, "little") + padded

    def file_bytes(self, num_rows: int) -> int:
        return HEADER_BYTES + num_rows * self.num_bytes


class Rows:
    """Reads the rows in order. Raises OSError."""

    def __init__(self, path: Path, row_type: RowType) -> None:
        self.row_type = row_type
        self.file = path.open("rb")
        self.file.seek(HEADER_BYTES)

    def take(self, count: int) -> np.ndarray:
        """Returns the next `count` rows, of shape (count, width)."""
        content = self.file.read(count * self.row_type.num_bytes)
        return np.frombuffer(content, dtype=self.row_type.dtype).reshape(count, self.row_type.width)

    def close(self) -> None:
        self.file.close()
