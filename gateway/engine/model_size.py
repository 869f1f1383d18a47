"""The memory that a loaded model takes on this machine, from its files: weights, what the runtime makes of them, tokenizer.

The same number before a load and after it, whatever else the process does meanwhile: the growth of its resident memory has that of
requests in it. Measured beside it with two streams on two cores: docs/models.md.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gateway.engine import artifact
from gateway.engine.artifact import Manifest
from gateway.engine.identity import weights_files
from gateway.engine.tokenizer import tokenizer_bytes

BUFFERS_BYTES = 30 * 1024 * 1024  # of a compiled network: its graph, and what a batch computes in between
BRANCHES_BYTES = 90 * 1024 * 1024  # of a latency network, whose branches share packed weights
MAX_BRANCHED_BYTES = 100 * 1000 * 1000  # of packed weights: a larger network computes so long that branches gain little
TOKENIZER = "tokenizer.json"


class _Model(Struct):
    type: str | None = None
    vocab: dict[str, Any] | list[Any] = {}


class _TokenizerFile(Struct):
    model: _Model = msgspec.field(default_factory=_Model)


def compiled_bytes(path: Path, manifest: Manifest) -> int:
    """A compiled model in `path`, without its tokenizer. Its weights are mapped from the file."""
    weights, packed = (path / artifact.WEIGHTS).stat().st_size, packed_bytes(path, manifest)
    return weights + packed + BUFFERS_BYTES + (BRANCHES_BYTES if packed <= MAX_BRANCHED_BYTES else 0)


def packed_bytes(path: Path, manifest: Manifest) -> int:
    """The weights that are multiplied, which OpenVINO packs once for all streams. The table of words is read from the file."""
    weights = (path / artifact.WEIGHTS).stat().st_size
    if manifest.network.kind != "embedder":
        return weights  # the table's width is not known
    _, num_words = _tokenizer_facts(path / artifact.TOKENIZER)
    return max(0, weights - num_words * manifest.network.dimensions * (4 if manifest.precision == "float32" else 2))


def folder_bytes(folder: Path) -> int:
    """A model that torch runs, before it is loaded: its weights as they are on disk."""
    return sum(path.stat().st_size for path in weights_files(folder))


def planned_bytes(folder: Path | None, path: Path | None, manifest: Manifest | None) -> int:
    """What a model will take once it is loaded: by its artifact in `path`, else by its own files in `folder`; else 0."""
    if path is not None and manifest is not None and manifest.runtime == "openvino":
        return compiled_bytes(path, manifest) + _tokenizer_file_bytes(path / artifact.TOKENIZER)
    if folder is None:
        return 0
    return folder_bytes(folder) + max((_tokenizer_file_bytes(file) for file in folder.rglob(TOKENIZER)), default=0)


def _tokenizer_file_bytes(path: Path) -> int:
    """The memory of the tokenizer in a file; 0 if it cannot be read."""
    return tokenizer_bytes(*_tokenizer_facts(path))


def _tokenizer_facts(path: Path) -> tuple[str, int]:
    """A tokenizer's kind, and the number of its words; "" and 0 if the file cannot be read."""
    try:
        stat = path.stat()
    except OSError:
        return "", 0
    return _parsed_facts(path, (stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=64)
def _parsed_facts(path: Path, _stamp: tuple[int, ...]) -> tuple[str, int]:
    """Cached, as a load asks several times, and parsing 250,000 words holds Python's lock."""
    try:
        model = msgspec.json.decode(path.read_bytes(), type=_TokenizerFile).model
    except (OSError, msgspec.MsgspecError):
        return "", 0
    return model.type or "", len(model.vocab)
