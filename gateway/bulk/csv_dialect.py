"""The dialect of a table: RFC 4180 for CSV; IANA's text/tab-separated-values, which has no quotes, for TSV; or as the options say.

If the dialect is wrong, the file lacks the expected columns. Then a hint names the option that would read it.
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

csv.field_size_limit(2 * MAX_ROW_BYTES)  # a field is bounded by the record's bytes


@dataclass(frozen=True, slots=True)
class TableDialect:
    """A delimiter and a quote. `quote` is None if no character quotes."""

    delimiter: str
    quote: str | None

    def fields(self, lines: list[str]) -> list[str]:
        """Returns one record's fields, none for a blank line. Raises csv.Error if it is invalid (text after a closing quote)."""
        if self.quote is None:
            line = lines[0].removesuffix("\n").removesuffix("\r")
            return line.split(self.delimiter) if line else []
        return next(csv.reader(lines, delimiter=self.delimiter, quotechar=self.quote, strict=True), [])

    def is_open_after(self, line: str, *, is_open: bool) -> bool:
        """Returns whether a quoted field is open at the line's end, by the rules of Python's csv with strict=False."""
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
        """Returns the index after the closing quote, or -1 if this line has none. A doubled quote is a quote within the field."""
        quote = self.quote or ""
        while (at := line.find(quote, at)) >= 0:
            if not line.startswith(quote, at + 1):
                return at + 1
            at += 2
        return -1


def dialect_of(form: str, delimiter: str | None, quote: str | None) -> TableDialect:
    """Returns the dialect of a format and options. Raises OperatorError if the options are not valid."""
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
    """Returns the separator of a first line like `sep=;`, which only Excel writes and reads, or None."""
    found = EXCEL_SEPARATOR.fullmatch(dialect.delimiter.join(fields))
    return found[1] if found else None


def missing(where: str, column: str, names: Iterable[str], *, hint: str = "") -> OperatorError:
    """Returns the error of a file without a required column. It lists the columns that exist, and one that may be meant."""
    names = list(names)
    told = ", ".join(map(shown, names[:MAX_NAMES])) or "none"
    near = [name for name in names if name.strip().casefold() == column.strip().casefold()]
    if near and not hint:
        hint = f"is it '{shown(near[0])}'?"
    return OperatorError(f"{where} has no column '{shown(column)}'; it has {told}" + f" ({hint})" * bool(hint))


def hint_of(line: str, column: str, dialect: TableDialect) -> str:
    """Returns the option that would find `column` in a first line: another delimiter, or quotes. Empty if none would."""
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
