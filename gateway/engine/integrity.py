"""Refuses files that are not whole, from their first bytes and their sizes: cut downloads, pointers, shards that are not there.

Loading would find most of it too, after seconds and in the words of a library.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.engine.identity import WEIGHTS, module_folders, modules_of, parse_json, weights_files
from gateway.engine.model_folder import MAX_HEADER_BYTES, own_settings
from gateway.errors import OperatorError

POINTER = b"version https://git-lfs.github.com/"
HEAD_BYTES = 512  # a pointer of Git LFS is shorter
METADATA = "__metadata__"  # the one entry of a safetensors header that is no tensor
LENGTH_BYTES = 8  # before the header of a safetensors file
PICKLE = b"\x80"  # the first byte of weights that torch saved before it zipped them
# Types of tensors that numpy and torch compute with; float8 and smaller ones need the scales of a quantised network.
DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "U16", "U32", "U64"}
WITH_CONFIGURATION = {"Pooling", "Dense"}  # modules that are nothing without it
TOKENIZER = "tokenizer.json"
TEXTS = ("config.json", TOKENIZER, "tokenizer_config.json", "vocab.txt", "*.model", "*.spm")


class _WholeTokenizer(Struct):
    model: dict[str, msgspec.Raw]


class _Tensor(Struct):
    dtype: str
    data_offsets: tuple[int, int]


def refuse_damaged(folder: Path) -> None:
    """Raises OperatorError for the first file that is missing, cut short, or something else than its name says."""
    own_settings(folder)
    for module in modules_of(folder) or ():
        name, part = str(module.get("type")).rpartition(".")[2], folder / str(module.get("path") or "")
        if name in WITH_CONFIGURATION and not (part / "config.json").is_file():
            raise OperatorError(f"the model in {folder} is incomplete: modules.json names {part.name}, which has no config.json")
    for part in module_folders(folder):
        _refuse_missing_shards(part)
        for path in (path for pattern in TEXTS for path in part.glob(pattern)):
            _refuse_pointer(path, _head(path))
        if (part / TOKENIZER).is_file():
            _refuse_no_tokenizer(part / TOKENIZER)
    for path in weights_files(folder):
        _refuse_pointer(path, _head(path))
        for fault in _faults_of(path):
            raise OperatorError(f"the file {path} {fault}: fetch it again")


def _refuse_missing_shards(part: Path) -> None:
    index = next((part / name for name in WEIGHTS if (part / name).is_file()), None)
    if index is None or index.suffix != ".json":
        return
    content = parse_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise OperatorError(f"the file {index} names no files of weights")
    if missing := sorted({name for name in shards.values() if not (part / name).is_file()}):
        raise OperatorError(
            f"the model in {part} is incomplete: {index.name} names {len(set(shards.values()))} files of weights, and"
            f" {len(missing)} of them are not there, {missing[0]} first: fetch them"
        )


def _refuse_pointer(path: Path, head: bytes) -> None:
    if head.startswith(POINTER):
        raise OperatorError(f"the file {path} is a pointer of Git LFS, and not the file: run git lfs pull in its folder")


def _refuse_no_tokenizer(path: Path) -> None:
    try:
        msgspec.json.decode(path.read_bytes(), type=_WholeTokenizer)
    except (ValueError, RecursionError):
        raise OperatorError(f"the file {path} is no tokenizer: it was cut short, or has no model: fetch it again") from None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise OperatorError(f"the file {path} cannot be read: {error.strerror}") from None


def _faults_of(path: Path) -> Iterator[str]:
    if path.stat().st_size == 0:
        yield "is empty"
    elif path.suffix == ".safetensors":
        yield from _faults_of_safetensors(path)
    elif path.suffix == ".bin" and not _head(path).startswith(PICKLE) and not zipfile.is_zipfile(path):
        yield "is no file of weights, or was cut short"


def _faults_of_safetensors(path: Path) -> Iterator[str]:
    """The header: its length in eight bytes, then JSON with each tensor's type and place behind it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > min(size, MAX_HEADER_BYTES):
            yield "is no safetensors file, or was cut short in its header"
            return
        try:
            header = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
            tensors = [msgspec.json.decode(content, type=_Tensor) for name, content in header.items() if name != METADATA]
        except msgspec.MsgspecError:
            yield "is no safetensors file: its header is not that of one"
            return
    expected = LENGTH_BYTES + length + max((tensor.data_offsets[1] for tensor in tensors), default=0)
    if size < expected:
        yield f"was cut short: it has {size:,} bytes of {expected:,}"
    strange = sorted({tensor.dtype for tensor in tensors} - DTYPES)
    if strange:
        yield f"is of quantised weights ({strange[0]}), which are not supported, and full ones are needed"
