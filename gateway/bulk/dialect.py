"""How the fields of a table are told apart: RFC 4180 for CSV; for TSV the IANA type, which knows no quotes; or as it is told.

Where a guess was wrong, the columns that a file has say so: a hint names the option that would read it.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.bulk.lines import MAX_ROW_BYTES
from gateway.bulk.row import shown
from gateway.errors import OperatorError

NAMED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
NO_QUOTES = "none"
GUESSES = (",", ";", "\t", "|")
MAX_NAMES = 20  # of a file's columns, in an error
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)

csv.field_size_limit(2 * MAX_ROW_BYTES)  # what bounds a field is the record's bytes


@dataclass(frozen=True, slots=True)
class TableDialect:
    """`quote` None means that no character is one."""

    delimiter: str
    quote: str | None

    def fields(self, lines: list[str]) -> list[str]:
        """One record's, none of a blank line. Raises csv.Error where it is none, as with characters after a closing quote."""
        if self.quote is None:
            line = lines[0].removesuffix("\n").removesuffix("\r")
            return line.split(self.delimiter) if line else []
        return next(csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True), [])

    def is_open_after(self, line: str, *, is_open: bool) -> bool:
        """Whether a quoted field is open at the line's end, as Python's csv has it where it is not strict."""
        if self.quote is None or (not is_open and self.quote not in line):
            return False
        at = 0
        while at < len(line):
            if not is_open and line.startswith(self.quote, at):
                is_open, at = True, at + 1
            if is_open:
                at = self.end_of_quoted(line, at)
                if at < 0:
                    return True
                is_open = False
            at = line.find(self.delimiter, at) + 1
            if not at:
                return False
        return is_open

    def end_of_quoted(self, line: str, at: int) -> int:
        """Behind the closing quote, or -1 where there is none in this line. Two quotes are one within the field."""
        quote = self.quote or ""
        while (at := line.find(quote, at)) >= 0:
            if not line.startswith(quote, at + 1):
                return at + 1
            at += 2
        return -1


def dialect_of(form: str, delimiter: str | None, quote: str | None) -> TableDialect:
    """Raises OperatorError for options that are no dialect."""
    delimiter = NAMED.get(delimiter.lower(), delimiter) if delimiter else "\t" if form == "tsv" else ","
    quote = quote or (NO_QUOTES if form == "tsv" else '"')
    quote = None if quote.lower() == NO_QUOTES else quote
    for option, value in {"--delimiter": delimiter, "--quote": quote}.items():
        if value is not None and (len(value) != 1 or value in "\r\n\ufeff" or value == "\0"):
            raise OperatorError(f"{option}: {shown(value)!r} is not one character" + " or none" * (option == "--quote"))
    if delimiter == quote:
        raise OperatorError(f"--delimiter and --quote are both {shown(delimiter)!r}")
    return TableDialect(delimiter, quote)


def excel_separator(fields: list[str], dialect: TableDialect) -> str | None:
    """What a first line such as `sep=;` says, which Excel writes and reads, and nobody else."""
    found = EXCEL_SEPARATOR.fullmatch(dialect.delimiter.join(fields))
    return found[1] if found else None


def missing(where: str, column: str, names: Iterable[str], *, hint: str = "") -> OperatorError:
    """The error of a file without a column that is needed: which it has, and what may be meant."""
    names = list(names)
    told = ", ".join(map(shown, names[:MAX_NAMES])) or "none"
    near = [name for name in names if name.strip().casefold() == column.strip().casefold()]
    if near and not hint:
        hint = f"is it '{shown(near[0])}'?"
    return OperatorError(f"{where} has no column '{shown(column)}'; it has {told}" + f" ({hint})" * bool(hint))


def hint_of(line: str, column: str, dialect: TableDialect) -> str:
    """What would make columns of a first line, where one is missed: another delimiter, or quotes."""
    line = line.rstrip("\r\n")
    found = {delimiter: [name.strip("'\"") for name in line.split(delimiter)] for delimiter in GUESSES}
    for quote, for_shell in {'"': "'\"'", "'": '"\'"'}.items():
        if quote != dialect.quote and f"{quote}{column}{quote}" in line.split(dialect.delimiter):
            return f"are its fields in quotes? --quote {for_shell}"
    others = {delimiter: names for delimiter, names in found.items() if delimiter != dialect.delimiter and len(names) > 1}
    best = max(others, key=lambda each: (column in others[each], len(others[each])), default=None)
    if best is None or (column not in others[best] and len(found.get(dialect.delimiter, [])) > 1):
        return ""
    name = "tab" if best == "\t" else best
    return f"is it separated by '{name}'? --delimiter '{name}'"
