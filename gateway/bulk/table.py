"""The records of a CSV or TSV file. The first record is the header. A quoted field may contain line ends.

A record's end is found by the rules of Python's csv with strict=False, so that an invalid record is still one row. Whether a record
is valid is decided strictly: by its quotes, and by its number of fields.
"""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from gateway.bulk.csv_dialect import TableDialect, dialect_of, excel_separator, hint_of
from gateway.bulk.lines import MAX_ROW_BYTES, Lines
from gateway.bulk.row import BadRow, Position, Record, shown
from gateway.bulk.source import TEXT, TOO_LONG, InputOptions, TextSource, choose_columns
from gateway.errors import OperatorError

SAMPLE_ROWS = 100
QUOTED = "has fields in quotes, which TSV takes as they are: --quote '\"' reads what they hold"


class Table(TextSource):
    """The rows of a table, numbered from 0 after the header. Blank lines are no rows.

    Raises OperatorError for a column that is missing or duplicate.
    """

    is_typed = False

    def __init__(self, path: Path, options: InputOptions, *, form: str) -> None:
        dialect = dialect_of(form, options.delimiter, options.quote)
        super().__init__(path, options)
        self.dialect = dialect
        try:
            first, self.names, self.first_record = self.header()
            hint = hint_of(first, options.column or TEXT, self.dialect)
            self.columns = choose_columns(shown(path), self.names, options, hint=hint)
            read = self.names if self.columns.keep is None else self.columns.read
            self.read_indices = [self.names.index(name) for name in read]
            self.refuse_doubtful(read)
            if form == "tsv" and not options.quote and self.has_quoted():
                self.notes.append(f"{shown(path)} {QUOTED}")
        except BaseException:
            self.close()
            raise

    def header(self) -> tuple[str, list[str], Position]:
        """Returns the first line, the column names, and where the records begin."""
        lines = self.table_lines(Position())
        try:
            first, names = self.read(lines)
            separator = excel_separator(names, self.dialect) if not self.options.delimiter else None
            if separator is not None:
                self.dialect = TableDialect(separator, self.dialect.quote)
            while first and (not names or separator is not None):
                separator = None
                first, names = self.read(lines)
        except BadRow as bad:
            raise OperatorError(f"{shown(self.path)}: its first record cannot be read: {bad}") from None
        return first, names, Position(0, lines.offset, lines.number)

    def has_quoted(self) -> bool:
        """Whether a field of the first SAMPLE_ROWS records is in double quotes, as spreadsheets write them."""
        records = (list(record.fields.values()) for record in islice(self.records(Position()), SAMPLE_ROWS))
        return any(field[:1] == '"' == field[-1:] and len(field) > 1 for fields in records for field in fields)

    def refuse_doubtful(self, read: tuple[str, ...] | list[str]) -> None:
        """Raises OperatorError if a column name is ambiguous, or cannot be decoded."""
        for name in read:
            if self.names.count(name) > 1:
                raise OperatorError(f"{shown(self.path)} has the column '{shown(name)}' more than once")
            if not _is_text(name):
                raise OperatorError(f"{shown(self.path)}: the name of its column '{shown(name)}' is not {self.encoding}")

    def records(self, start: Position) -> Iterator[Record]:
        lines = self.table_lines(start if start.offset else self.first_record)
        number = start.row
        while True:
            line = lines.number + 1
            fields: list[str] = []
            try:
                first, fields = self.read(lines)
                if not first:
                    return
                reason = self.reason(fields) if fields else None
            except BadRow as bad:
                reason = str(bad)
            if fields or reason:
                following = Position(number + 1, lines.offset, lines.number)
                yield Record(number, following, {} if reason else dict(zip(self.names, fields, strict=True)), reason, line)
                number += 1

    def read(self, lines: Lines) -> tuple[str, list[str]]:
        """Returns the next record's first line, empty at the end of the file, and its fields, none for a blank line.

        Raises BadRow if the record is invalid. Even then `lines` has moved to the next record.
        """
        held, num_lines, is_open, is_too_long = self.collect(lines)
        if is_open:
            raise BadRow(f"it has a quoted field that nothing closes, to the file's end: {num_lines:,} lines")
        if is_too_long:
            raise BadRow(TOO_LONG if num_lines == 1 else f"{TOO_LONG}: a quoted field of {num_lines:,} lines is in it")
        try:
            return (held[0], self.dialect.fields(held)) if held else ("", [])
        except csv.Error as error:
            raise BadRow(f"it is not CSV: {error}") from None

    def collect(self, lines: Lines) -> tuple[list[str], int, bool, bool]:
        """Returns the lines of the next record, their number, whether a quoted field is still open, and whether it is too long."""
        held: list[str] = []
        num_bytes = num_lines = 0
        is_open = False
        for line in lines:
            num_lines += 1
            num_bytes += MAX_ROW_BYTES + 1 if line is None else len(line)
            if line is None:  # a line too long is not in memory, but its quotes were counted
                is_open ^= bool(lines.num_counted % 2)
            else:
                text = line.decode(errors="surrogateescape")
                is_open = self.dialect.is_open_after(text, is_open=is_open)
                held.append(text)
            if num_bytes > MAX_ROW_BYTES:
                held.clear()
            if not is_open:
                break
        return held, num_lines, is_open, num_bytes > MAX_ROW_BYTES

    def reason(self, fields: list[str]) -> str | None:
        """Returns why a record is invalid, or None."""
        if len(fields) != len(self.names):
            delimiter = "tab" if self.dialect.delimiter == "\t" else shown(self.dialect.delimiter)
            surplus = f": a '{delimiter}' that no quotes protect?" if len(fields) > len(self.names) else ""
            return f"it has {len(fields)} field{'s' * (len(fields) != 1)}, and the header {len(self.names)}{surplus}"
        return None if all(_is_text(fields[index]) for index in self.read_indices) else self.no_text

    def table_lines(self, position: Position) -> Lines:
        return self.lines(position, counted=(self.dialect.quote or "").encode())


def _is_text(field: str) -> bool:
    """Whether all bytes of the field could be decoded: the others are lone surrogates in it."""
    try:
        field.encode()
    except UnicodeEncodeError:
        return False
    return True
