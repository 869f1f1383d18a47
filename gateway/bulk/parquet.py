"""Parquet input and output, through pyarrow: an optional dependency, imported only if a Parquet file is read or written."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from gateway.bulk.npy import Rows, RowType
from gateway.bulk.row import Id, Position, Record, Row, shown
from gateway.bulk.source import InputOptions, choose_columns
from gateway.errors import OperatorError

KB = 1024
NOT_UTF8 = "it is not UTF-8"
NO_ID = "neither text nor integers; --id names another, --no-id numbers the rows"
BATCH_ROWS = 1024
OUTPUT_GROUP_ROWS = 8192
PAGE_BUFFER_BYTES = 256 * KB


def arrow() -> Any:
    """Returns the package pyarrow. Raises OperatorError if it is not installed."""
    try:
        import pyarrow.parquet  # noqa: PLC0415 - an extra
    except ImportError:
        raise OperatorError("Parquet needs the package pyarrow: pip install pyarrow") from None
    return pyarrow


class ParquetFile:
    """The rows of a Parquet file. A row's offset is its number, from 0. Raises OperatorError for a missing or mistyped column."""

    is_typed = True
    has_columns = True
    notes: ClassVar[list[str]] = []

    def __init__(self, path: Path, options: InputOptions) -> None:
        self.arrow = pyarrow = arrow()
        self.path = path
        try:  # reads page by page, not a whole column of a row group
            self.file = pyarrow.parquet.ParquetFile(path, buffer_size=PAGE_BUFFER_BYTES, pre_buffer=False)
        except (OSError, pyarrow.ArrowException) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's error, not that of the file's content
                raise
            raise OperatorError(f"{shown(path)} is no Parquet file") from None
        self.size = self.file.metadata.num_rows
        self.schema = self.file.schema_arrow
        try:
            self.columns = choose_columns(shown(path), self.schema.names, options)
            self.names = list(dict.fromkeys([self.columns.text, *([] if self.columns.id is None else [self.columns.id])]))
            self.refuse_types()
        except BaseException:
            self.close()
            raise

    def refuse_types(self) -> None:
        types = self.arrow.types
        for name in self.schema.names if self.columns.keep is None else self.columns.read:
            if self.schema.names.count(name) > 1:
                raise OperatorError(f"{shown(self.path)} has the column '{shown(name)}' more than once")
        for name in self.names:
            kind = _plain_type(types, self.schema.field(name).type)
            if not is_string(types, kind) and not (name == self.columns.id and types.is_integer(kind)):
                wanted = NO_ID if name == self.columns.id else "not text"
                raise OperatorError(f"{shown(self.path)}: column '{shown(name)}' is of type {kind}, {wanted}")

    def records(self, start: Position) -> Iterator[Record]:
        first, before = 0, start.row - start.offset  # `before`: rows of a folder's earlier files
        for group in range(self.file.num_row_groups):
            num_rows = self.file.metadata.row_group(group).num_rows
            if first + num_rows > start.offset:
                for position, fields in enumerate(self.group_fields(group, first), first):
                    if position >= start.offset:
                        yield self.record(fields, Position(position + 1 + before, position + 1))
            first += num_rows

    def rows(self, start: Position) -> Iterator[Row]:
        for record in self.records(start):
            yield record.row(self.columns, is_typed=True)

    def group_fields(self, group: int, first: int) -> Iterator[dict[str, Any]]:
        for batch in self.batches(self.names, group=group, first=first):
            values = [self.plain(batch.column(name)) for name in self.names]
            for cells in zip(*values, strict=True):
                yield dict(zip(self.names, cells, strict=True))

    def batches(self, names: list[str], *, group: int, first: int) -> Iterator[Any]:
        """Yields a row group's record batches, with these columns at least, of at most BATCH_ROWS rows."""
        number = first
        try:
            for batch in self.file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=names):
                yield batch
                number += batch.num_rows
        except (OSError, self.arrow.ArrowException):
            raise OperatorError(f"{shown(self.path)} is damaged after row {number}, in row group {group}") from None

    def all_batches(self, names: list[str]) -> Iterator[Any]:
        first = 0
        for group in range(self.file.num_row_groups):
            yield from self.batches(names, group=group, first=first)
            first += self.file.metadata.row_group(group).num_rows

    def plain(self, column: Any) -> list[Any]:
        """Returns a column's values. Strings are bytes, so that invalid UTF-8 in one row does not affect the others."""
        pyarrow = self.arrow
        if pyarrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if is_string(pyarrow.types, column.type):
            column = column.cast(pyarrow.large_binary())
        values: list[Any] = column.to_pylist()
        return values

    def record(self, fields: dict[str, Any], following: Position) -> Record:
        try:
            texts = {name: value.decode() if isinstance(value, bytes) else value for name, value in fields.items()}
        except UnicodeDecodeError:
            return Record(following.row - 1, following, {}, NOT_UTF8)
        return Record(following.row - 1, following, texts)

    def share(self, place: Position) -> float:
        return place.offset / self.size if self.size else 1.0

    def close(self) -> None:
        self.file.close()


def _plain_type(types: Any, kind: Any) -> Any:
    return kind.value_type if types.is_dictionary(kind) else kind


def is_string(types: Any, kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def schema_of(id_name: str, row_type: RowType, *, are_integers: bool, kept: list[Any], about: dict[str, str]) -> Any:
    """Returns the schema: ids (int64, or string if one is no integer), `embedding` (fixed-size lists of numbers), kept columns."""
    pyarrow = arrow()
    id_type = pyarrow.int64() if are_integers else pyarrow.string()
    embedding = pyarrow.field("embedding", pyarrow.list_(pyarrow.from_numpy_dtype(row_type.dtype), row_type.width), nullable=False)
    return pyarrow.schema([pyarrow.field(id_name, id_type, nullable=False), embedding, *kept], metadata=about)


def plain_groups(num_rows: int) -> Iterator[tuple[int, list[Any]]]:
    """Yields the number of rows of each row group, without kept columns."""
    for start in range(0, num_rows, OUTPUT_GROUP_ROWS):
        yield min(OUTPUT_GROUP_ROWS, num_rows - start), []


def write(path: Path, schema: Any, *, rows: Rows, ids: Iterator[Id], groups: Iterator[tuple[int, list[Any]]]) -> None:
    """Writes the row groups: `groups` gives their numbers of rows and kept columns. Needs as many ids as rows. Raises OSError."""
    pyarrow = arrow()
    ids_field = schema.field(0)
    are_integers = pyarrow.types.is_integer(ids_field.type)
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": [ids_field.name]}
    with closing(rows), pyarrow.parquet.ParquetWriter(path, schema, **options) as writer:
        for num_rows, kept in groups:
            names = [each if are_integers else str(each) for each in islice(ids, num_rows)]
            flat = pyarrow.array(rows.take(num_rows).reshape(-1))
            lists = pyarrow.FixedSizeListArray.from_arrays(flat, rows.row_type.width)
            columns = [pyarrow.array(names, type=ids_field.type), lists, *kept]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
