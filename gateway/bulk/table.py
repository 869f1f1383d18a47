"""The records of a CSV or TSV file, as RFC 4180 has them: the first names the columns, quoted fields may hold line ends."""

import csv
from collections.abc import Iterator
from pathlib import Path

from gateway.bulk.lines import MAX_ROW_BYTES, Lines
from gateway.bulk.row import BadRow, Columns, Place, Row, bad_row, row_of
from gateway.bulk.source import NOT_UTF8, TOO_LONG, open_text
from gateway.errors import OperatorError


class Table:
    """A row's number is its record's, from 0, the one with the names not counted. Raises OperatorError for a missing column."""

    def __init__(self, path: Path, columns: Columns, *, delimiter: str = ",") -> None:
        self.file, first = open_text(path)
        self.size = path.stat().st_size
        self.delimiter = delimiter
        self.columns = columns
        try:
            self.names, self.first = self.header(path, RecordLines(Lines(self.file, offset=first, keeps_ends=True)))
        except OperatorError:
            self.close()
            raise

    def header(self, path: Path, lines: "RecordLines") -> tuple[list[str], int]:
        """The columns' names, and where the records begin."""
        try:
            names = next(self.parser(lines), [])
        except (csv.Error, BadRow) as error:
            raise OperatorError(f"{path}: its first record cannot be read: {error}") from None
        for column in (self.columns.text, self.columns.id):
            if column is not None and column not in names:
                raise OperatorError(f"{path} has no column '{column}'; it has {', '.join(names[:20]) or 'none'}")
        return names, lines.lines.offset

    def parser(self, lines: "RecordLines") -> Iterator[list[str]]:
        csv.field_size_limit(2 * MAX_ROW_BYTES)  # what bounds a field is the record's bytes
        return csv.reader(lines, delimiter=self.delimiter, strict=True)

    def rows(self, start: Place) -> Iterator[Row]:
        lines = RecordLines(Lines(self.file, offset=max(start.offset, self.first), keeps_ends=True))
        records = self.parser(lines)
        number = start.row
        while True:
            lines.begin()
            reason = None
            fields: list[str] = []
            try:
                fields = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                reason = f"it is not CSV: {error}"
            except BadRow as bad:
                reason = str(bad)
            if reason is None and not fields:
                continue  # a blank line
            yield self.row(fields, reason, number, Place(number + 1, lines.lines.offset))
            number += 1

    def row(self, fields: list[str], reason: str | None, number: int, following: Place) -> Row:
        record = dict(zip(self.names, fields, strict=False))
        read = [record.get(name, "") for name in (self.columns.text, self.columns.id) if name is not None]
        if reason is None and not all(map(is_text, read)):
            reason = NOT_UTF8
        if reason is not None:
            return bad_row(reason, number, following, has_id_column=self.columns.id is not None)
        return row_of(record, self.columns, number, following)

    def close(self) -> None:
        self.file.close()


class RecordLines:
    """Lines for the parser, which knows no bytes: those that are no UTF-8 stand in them as lone surrogates."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.num_bytes = 0  # of the record so far

    def begin(self) -> None:
        self.num_bytes = 0

    def __iter__(self) -> "RecordLines":
        return self

    def __next__(self) -> str:
        """Raises BadRow, after which the parser goes on with the next line as a new record."""
        line = next(self.lines)
        self.num_bytes += len(line) if line is not None else MAX_ROW_BYTES
        if line is None or self.num_bytes > MAX_ROW_BYTES:
            raise BadRow(TOO_LONG)
        return line.decode(errors="surrogateescape")


def is_text(field: str) -> bool:
    try:
        field.encode()
    except UnicodeEncodeError:
        return False
    return True
