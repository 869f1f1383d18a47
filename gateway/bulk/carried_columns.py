"""The input's columns that `--keep` copies to the output, for the rows that were embedded.

They are read in a second pass over the input, so that nothing is stored meanwhile. Parquet columns keep their types. A JSON column
gets a type that fits all its values: string if no other does, and then other values are written as JSON. Columns of CSV and TSV are
strings.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from gateway.bulk.folder import Folder
from gateway.bulk.outcome import RejectedRow
from gateway.bulk.parquet import OUTPUT_GROUP_ROWS, ParquetFile, arrow
from gateway.bulk.row import MAX_INT64, LongInteger, Position, Record
from gateway.bulk.source import RowSource, TextSource
from gateway.errors import OperatorError

MAX_GROUP_BYTES = 64 * 1024 * 1024  # roughly, of kept values in memory
MAX_COLUMNS = 10_000
EXACT_IN_FLOAT = 2**53
Rejected = Callable[[], Iterator[RejectedRow]]


class Kept:
    """The kept columns. `fields` are Arrow fields, renamed where the output has a column of the same name."""

    def __init__(self, source: RowSource, *, id_name: str, rejected: Rejected) -> None:
        self.source = source
        self.rejected = rejected
        self.arrow = arrow()
        self.types = self.parquet_types() if is_parquet(source) else self.inferred_types()
        if id_name == source.columns.id:
            self.types.pop(id_name, None)  # the output has it already
        self.fields = [self.arrow.field(_free_name(name, id_name, self.types), kind) for name, kind in self.types.items()]

    def parquet_types(self) -> dict[str, Any]:
        schemas = [file.schema for file in _parquet_files(self.source)]
        try:
            schema = self.arrow.unify_schemas(schemas, promote_options="permissive")
        except self.arrow.ArrowException:
            raise OperatorError(
                "--keep: the folder's files have columns of one name and of types that do not go together"
            ) from None
        names = schema.names if self.source.columns.keep is None else self.source.columns.keep
        return {name: schema.field(name).type for name in names}

    def inferred_types(self) -> dict[str, Any]:
        """Returns a type for each column, inferred from all values."""
        kinds: dict[str, set[str]] = {name: set() for name in self.source.columns.keep or ()}
        for record in self.embedded():
            for name, value in record.fields.items():
                if self.source.columns.keep is None or name in kinds:
                    kinds.setdefault(name, set()).add(kind_of(value))
            if len(kinds) > MAX_COLUMNS:
                raise OperatorError(f"--keep all: the objects have more than {MAX_COLUMNS:,} different fields; name some of them")
        return {name: self.type_of(found - {"null"}) for name, found in kinds.items()}

    def type_of(self, kinds: set[str]) -> Any:
        if kinds == {"boolean"}:
            return self.arrow.bool_()
        if kinds and kinds <= {"integer", "large integer"}:
            return self.arrow.int64()
        if kinds and kinds <= {"integer", "float"}:
            return self.arrow.float64()
        return self.arrow.string()

    def embedded(self) -> Iterator[Record]:
        """Yields the records that have a vector, in order."""
        rejected = (each.row for each in self.rejected())
        following = next(rejected, None)
        for record in _records_of(self.source):
            if record.number == following:
                following = next(rejected, None)
            else:
                yield record

    def groups(self) -> Iterator[tuple[int, list[Any]]]:
        """Yields row groups: the number of rows, and their columns. There must be at least one column."""
        if is_parquet(self.source):
            yield from self.parquet_groups()
            return
        records: list[Record] = []
        num_bytes = 0
        for record in self.embedded():
            records.append(record)
            num_bytes += sum(len(str(value)) for value in record.fields.values())
            if len(records) == OUTPUT_GROUP_ROWS or num_bytes > MAX_GROUP_BYTES:
                yield len(records), self.columns_of(records)
                records, num_bytes = [], 0
        if records:
            yield len(records), self.columns_of(records)

    def columns_of(self, records: list[Record]) -> list[Any]:
        is_string = self.arrow.types.is_string
        return [
            self.arrow.array(
                [as_text(value) if is_string(kind) else value for value in (record.fields.get(name) for record in records)],
                type=kind,
            )
            for name, kind in self.types.items()
        ]

    def parquet_groups(self) -> Iterator[tuple[int, list[Any]]]:
        held: list[Any] = []
        for batch in self.parquet_batches():
            held.append(batch)
            if sum(each.num_rows for each in held) >= OUTPUT_GROUP_ROWS or sum(each.nbytes for each in held) > MAX_GROUP_BYTES:
                yield self.group_of(held)
                held = []
        if held:
            yield self.group_of(held)

    def group_of(self, batches: list[Any]) -> tuple[int, list[Any]]:
        table = self.arrow.concat_tables(batches)
        return table.num_rows, [table.column(name) for name in self.types]

    def parquet_batches(self) -> Iterator[Any]:
        """Yields tables of the kept columns, with embedded rows only."""
        rejected = (each.row for each in self.rejected())
        following, number = next(rejected, None), 0
        for file in _parquet_files(self.source):
            for batch in file.all_batches([name for name in self.types if name in file.schema.names] or [file.columns.text]):
                is_embedded = [True] * batch.num_rows
                while following is not None and following < number + batch.num_rows:
                    is_embedded[following - number] = False
                    following = next(rejected, None)
                number += batch.num_rows
                yield self.table_of(batch.filter(self.arrow.array(is_embedded, type=self.arrow.bool_())))

    def table_of(self, batch: Any) -> Any:
        columns = {
            name: batch.column(name).cast(kind) if name in batch.schema.names else self.arrow.nulls(batch.num_rows, kind)
            for name, kind in self.types.items()
        }
        return self.arrow.table(columns)


def is_parquet(source: RowSource) -> bool:
    """Whether the input is Parquet. Raises OperatorError for a folder that has Parquet and other formats."""
    forms = source.forms if isinstance(source, Folder) else set()
    if "parquet" in forms and len(forms) > 1:
        raise OperatorError("--keep: the folder has Parquet beside other formats, and their types do not go together")
    return isinstance(source, ParquetFile) or "parquet" in forms


def _parquet_files(source: RowSource) -> Iterator[ParquetFile]:
    """Yields the files one after another. Each is open until the next is requested."""
    if isinstance(source, ParquetFile):
        yield source
    elif isinstance(source, Folder):
        for index in range(len(source.files)):
            source.close()
            file = source.open(index)
            if isinstance(file, ParquetFile):
                yield file


def _records_of(source: RowSource) -> Iterator[Record]:
    if isinstance(source, Folder):
        position = Position()
        for index in range(len(source.files)):
            source.close()
            file = source.open(index)
            if isinstance(file, TextSource):
                for record in file.records(position):
                    position = record.next
                    yield record
            position = Position(position.row)
    elif isinstance(source, TextSource):
        yield from source.records(Position())


def kind_of(value: Any) -> str:
    """Returns the kind of a JSON value, as far as it decides a column's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if abs(value) <= EXACT_IN_FLOAT else "large integer" if -MAX_INT64 - 1 <= value <= MAX_INT64 else "number"
    return "float" if isinstance(value, float) else "text"


def as_text(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not isinstance(value, LongInteger)):
        return value
    return (
        str(value)
        if isinstance(value, int | LongInteger) and not isinstance(value, bool)
        else json.dumps(value, ensure_ascii=False)
    )


def _free_name(name: str, id_name: str, taken: Any) -> str:
    """Returns the name of a kept column in the output: its own, with `input_` before it if that is taken."""
    found = name
    while found in {"embedding", id_name} or (found != name and found in taken):
        found = f"input_{found}"
    return found
