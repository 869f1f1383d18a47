"""Parquet, in and out, through pyarrow: an extra, imported only where a file of this format is read or written."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gateway.bulk.row import Columns, Id, Place, Row, bad_row, row_of
from gateway.bulk.source import NOT_UTF8
from gateway.errors import OperatorError

KB = 1024
BATCH_ROWS = 1024
OUTPUT_GROUP_ROWS = 8192
PAGE_BUFFER_BYTES = 256 * KB


def arrow() -> Any:
    """The package. Raises OperatorError where it is not installed."""
    try:
        import pyarrow.parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise OperatorError("Parquet needs the package pyarrow: pip install pyarrow") from None
    return pyarrow


class ParquetFile:
    """A row's number is its own, from 0, and so is its offset. Raises OperatorError for a missing column or one of another type."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self.arrow = pyarrow = arrow()
        self.columns = columns
        self.path = path
        try:  # page by page, not a whole column of a row group
            self.file = pyarrow.parquet.ParquetFile(path, buffer_size=PAGE_BUFFER_BYTES, pre_buffer=False)
        except pyarrow.ArrowInvalid:
            raise OperatorError(f"{path} is no Parquet file") from None
        self.size = self.file.metadata.num_rows
        self.names = [columns.text, *([] if columns.id is None else [columns.id])]
        schema, types = self.file.schema_arrow, pyarrow.types
        for name in self.names:
            if schema.get_field_index(name) < 0:
                raise OperatorError(f"{path} has no column '{name}'; it has {', '.join(schema.names[:20])}")
            kind = schema.field(name).type
            kind = kind.value_type if types.is_dictionary(kind) else kind
            is_fine = is_string(types, kind) or (name == columns.id and types.is_integer(kind))
            if not is_fine:
                raise OperatorError(f"{path}: column '{name}' is of type {kind}, not text")

    def rows(self, start: Place) -> Iterator[Row]:
        first, number = 0, start.row
        for group in range(self.file.num_row_groups):
            num_rows = self.file.metadata.row_group(group).num_rows
            if first + num_rows > number:
                for row in self.group_rows(group, first):
                    if row.number >= number:
                        yield row
            first += num_rows

    def group_rows(self, group: int, first: int) -> Iterator[Row]:
        number = first
        try:
            for batch in self.file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=self.names):
                values = [self.plain(batch.column(name)) for name in self.names]
                for cells in zip(*values, strict=True):
                    yield self.row(dict(zip(self.names, cells, strict=True)), number)
                    number += 1
        except (OSError, self.arrow.ArrowException):
            raise OperatorError(f"{self.path} is damaged after row {number}, in row group {group}") from None

    def plain(self, column: Any) -> list[Any]:
        """A column's values; strings as bytes, so that one which is no UTF-8 costs no other its own."""
        pyarrow = self.arrow
        if pyarrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if is_string(pyarrow.types, column.type):
            column = column.cast(pyarrow.large_binary())
        values: list[Any] = column.to_pylist()
        return values

    def row(self, record: dict[str, Any], number: int) -> Row:
        following = Place(number + 1, number + 1)
        try:
            texts = {name: value.decode() if isinstance(value, bytes) else value for name, value in record.items()}
        except UnicodeDecodeError:
            return bad_row(NOT_UTF8, number, following, has_id_column=self.columns.id is not None)
        return row_of(texts, self.columns, number, following)

    def close(self) -> None:
        self.file.close()


def is_string(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def schema_of(dimensions: int, *, are_integers: bool, about: dict[str, str]) -> Any:
    """Columns `id` (int64, or string where one is no integer) and `embedding` (lists of so many float32), and words about them."""
    pyarrow = arrow()
    id_type = pyarrow.int64() if are_integers else pyarrow.string()
    embedding = pyarrow.field("embedding", pyarrow.list_(pyarrow.float32(), dimensions), nullable=False)
    return pyarrow.schema([pyarrow.field("id", id_type, nullable=False), embedding], metadata=about)


def write(path: Path, schema: Any, *, blocks: Iterator[np.ndarray], ids: Iterator[Id]) -> None:
    """A row group a block. A block has shape (n, dimensions), float32; there are as many ids as rows. Raises OSError."""
    pyarrow = arrow()
    are_integers = pyarrow.types.is_integer(schema.field("id").type)
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=False, write_statistics=["id"]) as writer:
        for block in blocks:
            names = [each if are_integers else str(each) for each in islice(ids, len(block))]
            flat = pyarrow.array(block.reshape(-1))
            lists = pyarrow.FixedSizeListArray.from_arrays(flat, block.shape[1])
            columns = [pyarrow.array(names, type=schema.field("id").type), lists]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
