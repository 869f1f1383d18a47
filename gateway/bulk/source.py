"""The rows of a file, from any row on. Memory is that of one row, however large the file."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import msgspec

from gateway.bulk.lines import MAX_ROW_BYTES, MB, Lines
from gateway.bulk.row import BadRow, Columns, Place, Row, bad_row, row_of
from gateway.errors import OperatorError

Format = Literal["text", "jsonl", "csv", "tsv", "parquet"]
FORMATS: dict[str, Format] = {
    ".txt": "text", ".text": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
    ".pq": "parquet",
}  # fmt: skip
BOM = b"\xef\xbb\xbf"
FOREIGN = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "compressed", b"PK\x03\x04": "compressed"}
TOO_LONG = f"it is longer than {MAX_ROW_BYTES // MB} MB"
NOT_UTF8 = "it is not UTF-8"


class RowSource(Protocol):
    """`size` is the offset at the end of the file: bytes, or rows where a row is what can be found again."""

    size: int

    def rows(self, start: Place) -> Iterator[Row]: ...

    def close(self) -> None: ...


def format_of(path: Path, asked: Format | None) -> Format:
    """Raises OperatorError where the name does not tell."""
    found = asked or FORMATS.get(path.suffix.lower())
    if found is None:
        raise OperatorError(f"{path}: its name does not tell its format; say --format {'|'.join(dict.fromkeys(FORMATS.values()))}")
    return found


def open_text(path: Path) -> tuple[BinaryIO, int]:
    """A file of UTF-8 lines, and the byte at which they begin. Raises OSError, and OperatorError for other files."""
    file = path.open("rb")
    head = file.read(len(BOM) + 1)
    for sign, what in FOREIGN.items():
        if head.startswith(sign):
            file.close()
            raise OperatorError(f"{path} is {what}, where UTF-8 text is read")
    return file, len(BOM) if head.startswith(BOM) else 0


class TextLines:
    """A text a line. A row's number is its line's, from 0."""

    def __init__(self, path: Path) -> None:
        self.file, self.first = open_text(path)
        self.size = path.stat().st_size

    def rows(self, start: Place) -> Iterator[Row]:
        lines = Lines(self.file, offset=max(start.offset, self.first))
        for number, line in enumerate(lines, start.row):
            following = Place(number + 1, lines.offset)
            try:
                yield row_of({"text": decode(line)}, Columns("text"), number, following)
            except BadRow as bad:
                yield bad_row(str(bad), number, following, has_id_column=False)

    def close(self) -> None:
        self.file.close()


class JSONLines(TextLines):
    """An object a line. A row's number is its line's, from 0; blank lines are counted and passed over."""

    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(path)
        self.columns = columns

    def rows(self, start: Place) -> Iterator[Row]:
        lines = Lines(self.file, offset=max(start.offset, self.first))
        for number, line in enumerate(lines, start.row):
            if line is not None and not line.strip():
                continue
            following = Place(number + 1, lines.offset)
            try:
                yield row_of(json_object(decode(line)), self.columns, number, following)
            except BadRow as bad:
                yield bad_row(str(bad), number, following, has_id_column=self.columns.id is not None)


def decode(line: bytes | None) -> str:
    if line is None:
        raise BadRow(TOO_LONG)
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise BadRow(NOT_UTF8) from None


def json_object(line: str) -> dict[str, object]:
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadRow("it is not JSON") from None
    if not isinstance(record, dict):
        raise BadRow("it is no JSON object")
    return record
