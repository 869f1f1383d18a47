"""The ranges in a row's setting `quantization_ranges`, for vectors of one length or of several; perhaps from a file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.config import ModelRow, RangesSetting
from gateway.embedding.quantization import Ranges, ranges_of
from gateway.errors import ConfigurationError

MAX_FILE_BYTES = 16 * 1024 * 1024
DIMENSIONS = re.compile(r"[1-9][0-9]{0,5}")  # a million of them would be 8 MB
PAIR = 2  # numbers, or rows of an array: a minimum and a maximum
MAX_REPEATED = 64  # ranges of one pair that are kept; clients ask for a few lengths, and those of 4,096 dimensions are 32 KB
EXPECTED = "expected [min, max], a list of such pairs, one for each dimension, or a .npy or .json file of them"


@dataclass(frozen=True, slots=True)
class RowRanges:
    """`pair` is the range of every dimension of vectors of any length, `by_dimensions` are those of vectors of some lengths."""

    pair: tuple[float, float] | None = None
    by_dimensions: dict[int, Ranges] = field(default_factory=dict)

    def of(self, dimensions: int) -> Ranges | None:
        """The ranges of vectors of this length; None if the row names none."""
        return self.by_dimensions.get(dimensions) if self.pair is None else _repeated(self.pair, dimensions)


def read_ranges(row: ModelRow) -> RowRanges:
    """Reads the setting, and its files. Raises ConfigurationError that names the row and what is wrong."""
    setting = row.quantization_ranges
    where = f"models[{row.name}].quantization_ranges"
    if setting is None:
        return RowRanges()
    if not isinstance(setting, Mapping):
        bounds = _bounds_of(setting, where)
        return RowRanges(_pair(bounds)) if bounds.ndim == 1 else RowRanges(by_dimensions={bounds.shape[1]: _ranges(bounds, where)})
    found: dict[int, Ranges] = {}
    for name, each in setting.items():
        if not DIMENSIONS.fullmatch(name):
            raise ConfigurationError(f"{where}: '{name}' is no number of dimensions")
        dimensions, bounds = int(name), _bounds_of(each, f"{where}.{name}")
        if bounds.ndim > 1 and bounds.shape[1] != dimensions:
            raise ConfigurationError(f"{where}.{name}: these are the ranges of {bounds.shape[1]} dimensions")
        found[dimensions] = _repeated(_pair(bounds), dimensions) if bounds.ndim == 1 else _ranges(bounds, f"{where}.{name}")
    return RowRanges(by_dimensions=found)


def _bounds_of(setting: RangesSetting, where: str) -> NDArray[np.float32]:
    """One range, shape (2,), or that of each dimension, shape (2, dimensions)."""
    content = _content_of(Path(setting).expanduser(), where) if isinstance(setting, str) else setting
    bounds = _numbers_of(content, where)
    if bounds.ndim == PAIR and not isinstance(content, np.ndarray):
        bounds = bounds.T  # a list of pairs; an array is sentence-transformers' own, a row of minima and one of maxima
    if bounds.ndim not in {1, PAIR} or bounds.shape[0] != PAIR or bounds.size == 0:
        raise ConfigurationError(f"{where}: {EXPECTED}")
    _ranges(bounds.reshape(PAIR, -1), where)
    return bounds


def _numbers_of(content: Any, where: str) -> NDArray[np.float32]:
    """Integers and floats as float32; a larger one becomes infinite. Raises ConfigurationError for anything else."""
    try:
        numbers = np.asarray(content)
    except ValueError:  # lists of different lengths
        raise ConfigurationError(f"{where}: {EXPECTED}") from None
    if numbers.dtype.kind not in "iuf":
        raise ConfigurationError(f"{where}: {EXPECTED}")
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _content_of(path: Path, where: str) -> Any:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"{where}: the file {path} is larger than ranges can be")
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{where}: the file {path} cannot be read: {error.strerror}") from None
    except (ValueError, EOFError, RecursionError):  # the last: JSON nested too deeply
        raise ConfigurationError(f"{where}: the file {path} is neither a NumPy array nor JSON") from None


def _ranges(bounds: NDArray[np.float32], where: str) -> Ranges:
    try:
        return ranges_of(*bounds)
    except ValueError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _pair(bounds: NDArray[np.float32]) -> tuple[float, float]:
    minimum, maximum = bounds.tolist()
    return minimum, maximum


@lru_cache(MAX_REPEATED)
def _repeated(pair: tuple[float, float], dimensions: int) -> Ranges:
    return ranges_of(*(np.full(dimensions, bound) for bound in pair))
