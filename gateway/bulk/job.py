"""The identity of a run, stored with its unfinished work: only a run with the same job may resume it."""

from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.bulk.content import InputFile
from gateway.bulk.npy import RowType
from gateway.bulk.shard import MAX_BYTES, MAX_ROWS
from gateway.config import OutputDtype
from gateway.embedding.fingerprint import changes
from gateway.errors import OperatorError

PROTOCOL = 2  # version of the unfinished folder's files, of what a row is, and of where shards begin


class BulkJob(Struct, frozen=True, kw_only=True):
    """All that decides the vector of each row. `fingerprint` is the loaded model's, `dimensions` are those of the output.

    `quantization` is the id of the ranges of int8 and uint8.
    """

    file: InputFile
    format: str
    column: str
    id_column: str | None
    keep: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    encoding: str | None = None
    model: str
    fingerprint: str
    dimensions: int
    input_type: str | None
    long_input: str
    dtype: OutputDtype = "float"
    quantization: str | None = None
    protocol: int = PROTOCOL
    shard_rows: int = MAX_ROWS
    shard_bytes: int = MAX_BYTES

    @property
    def row_type(self) -> RowType:
        return RowType.of(self.dtype, self.dimensions)


SHOWN = {
    "column": "--column", "id_column": "--id", "keep": "--keep", "delimiter": "--delimiter", "quote": "--quote",
    "encoding": "--encoding", "input_type": "--input-type", "long_input": "the long-input rule", "dimensions": "the dimensions",
    "protocol": "the gateway's version", "shard_rows": "the gateway's version", "shard_bytes": "the gateway's version",
    "format": "--format", "model": "the model", "dtype": "--dtype", "quantization": "the ranges of int8 and uint8",
}  # fmt: skip


def differences(then: BulkJob, now: BulkJob) -> list[str]:
    """Returns what has changed between two jobs, in words."""
    found = ["the input file was changed"] if then.file != now.file else []
    if then.model == now.model and then.fingerprint != now.fingerprint:
        found.append(f"the model's vectors ({' and '.join(changes(then.fingerprint, now.fingerprint))} changed)")
    for name, shown in SHOWN.items():
        before, after = getattr(then, name), getattr(now, name)
        if before != after:
            found.append(f"{shown} ({before or 'none'} then, {after or 'none'} now)")
    return found


def read(path: Path) -> BulkJob | None:
    """Returns the stored job, or None if there is none. Raises OperatorError if it is damaged, or another version's."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=BulkJob)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        raise OperatorError(f"{path} is of another version of the gateway, or damaged: --restart begins anew") from None
