"""Reads the tensors of a safetensors file with numpy alone.

Format: https://github.com/huggingface/safetensors#format. Eight bytes of length, a JSON header of that length, and the numbers.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.errors import OperatorError

# numpy has no bfloat16: its bits are read as uint16.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"}
METADATA = "__metadata__"
MAX_HEADER_BYTES = 100 * 1024 * 1024  # safetensors' own bound


class _Entry(Struct, frozen=True):
    """A tensor's type, its shape, and where its bytes begin and end behind the header."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Reads all tensors into memory, so that a file that is changed later changes none of them.

    Raises OperatorError if the file cannot be read, or has a tensor of another type than DTYPES.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = msgspec.json.decode(file.read(min(length, MAX_HEADER_BYTES)), type=dict[str, msgspec.Raw])
            entries = {name: msgspec.json.decode(raw, type=_Entry) for name, raw in header.items() if name != METADATA}
            return {name: _read(file, 8 + length, entry) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError) as error:  # msgspec's errors are ValueErrors
        raise OperatorError(f"the weights in {path} cannot be read as safetensors: {type(error).__name__}") from error


def _read(file: Any, start: int, entry: _Entry) -> NDArray[Any]:
    """Raises KeyError for an unknown type, and ValueError if the file ends too early or the shape is another."""
    file.seek(start + entry.data_offsets[0])
    dtype = np.dtype(DTYPES[entry.dtype])
    num_bytes = entry.data_offsets[1] - entry.data_offsets[0]
    found = np.fromfile(file, dtype=dtype, count=num_bytes // dtype.itemsize)
    return found.reshape(entry.shape)
