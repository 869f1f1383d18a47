"""Row sources: the rows of a file, from any row on. Memory is bounded by one row, however large the file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from gateway.bulk.csv_dialect import missing
from gateway.bulk.encoding import UTF8
from gateway.bulk.lines import MAX_ROW_BYTES, MB, Lines, without_end
from gateway.bulk.row import BadRow, Columns, Position, Record, Row, shown
from gateway.bulk.stream import TextStream
from gateway.errors import OperatorError

Format = Literal["text", "jsonl", "json", "csv", "tsv", "parquet"]
FORMATS: dict[str, Format] = {
    ".txt": "text", ".text": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv",
    ".tab": "tsv", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
COMPRESSED = (".gz", ".gzip", ".zst", ".zstd")
TOO_LONG = f"it is longer than {MAX_ROW_BYTES // MB} MB"
TEXT, ID, ALL = "text", "id", "all"


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """The options for reading a file. None means that the file decides. `numbered`: a column `id` is not the id."""

    form: Format | None = None
    column: str | None = None
    id_column: str | None = None
    numbered: bool = False
    keep: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    encoding: str | None = None
    max_bytes: int | None = None  # of a text, unpacked


class RowSource(Protocol):
    """The rows of a file or folder. `is_typed`: the id "1" differs from the id 1. In an untyped format both are the integer."""

    columns: Columns
    is_typed: bool

    @property
    def notes(self) -> list[str]:
        """Lines for the operator: guesses that may be wrong."""

    @property
    def has_columns(self) -> bool:
        """Whether the columns are from the file. False for JSON without objects, and for text lines."""

    def rows(self, start: Position) -> Iterator[Row]:
        """Yields the rows from `start` on. Raises OSError, and OperatorError if the rest cannot be read."""

    def share(self, position: Position) -> float:
        """Returns the part of the input before a position, from 0 to 1."""

    def close(self) -> None: ...


class TextSource:
    """A text file, read as UTF-8."""

    columns: Columns
    is_typed = True
    has_columns = True

    def __init__(self, path: Path, options: InputOptions) -> None:
        self.path = path
        self.options = options
        self.stream = TextStream(path, options.encoding, max_bytes=options.max_bytes)
        self.encoding = self.stream.encoding.upper()
        self.notes: list[str] = []
        self.no_text = f"it is not {shown(self.encoding)}"

    def records(self, start: Position) -> Iterator[Record]:
        raise NotImplementedError

    def rows(self, start: Position) -> Iterator[Row]:
        for record in self.records(start):
            yield record.row(self.columns, is_typed=self.is_typed)

    def lines(self, position: Position, *, counted: bytes = b"") -> Lines:
        return Lines(self.stream, offset=max(position.offset, self.stream.first), number=position.line, counted=counted)

    def text(self, line: bytes | None) -> str:
        """Decodes a line. Raises BadRow if it was too long (None), or is not valid UTF-8."""
        if line is None:
            raise BadRow(TOO_LONG)
        try:
            return line.decode(UTF8)
        except UnicodeDecodeError:
            raise BadRow(self.no_text) from None

    def share(self, position: Position) -> float:
        return self.stream.share(position.offset)

    def close(self) -> None:
        self.stream.close()


class TextLines(TextSource):
    """One text per line. A row's number is its line's, from 0."""

    has_columns = False

    def __init__(self, path: Path, options: InputOptions) -> None:
        if options.column not in {None, TEXT} or options.id_column or options.keep not in {None, TEXT, ALL}:
            raise OperatorError("text lines have no columns: --column, --id and --keep are for the other formats")
        super().__init__(path, options)
        self.columns = Columns(TEXT, keep=(TEXT,) if options.keep else ())

    def records(self, start: Position) -> Iterator[Record]:
        lines = self.lines(start)
        for number, line in enumerate(lines, start.row):
            following = Position(number + 1, lines.offset, lines.number)
            try:
                yield Record(number, following, {TEXT: self.text(line and without_end(line))}, line=lines.number)
            except BadRow as bad:
                yield Record(number, following, {}, str(bad), lines.number)


def format_by_name(path: Path) -> Format | None:
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return FORMATS.get(name.suffix.lower())


def format_of(path: Path, asked: Format | None) -> Format:
    """Returns the format asked for, or that of the file name's ending. Raises OperatorError if the ending is unknown."""
    found = asked or format_by_name(path)
    if found is None:
        choices = "|".join(dict.fromkeys(FORMATS.values()))
        raise OperatorError(f"{shown(path)}: its name does not tell its format; say --format {choices}")
    return found


def choose_columns(where: str, names: Iterable[str], options: InputOptions, *, hint: str = "") -> Columns:
    """Chooses the columns of text, id and `--keep`. A column `id` is the id, unless another is named or rows are to be numbered.

    Raises OperatorError if one is missing.
    """
    names = list(names)
    text = options.column or TEXT
    row_id = options.id_column
    if row_id is None and not options.numbered and ID in names and text != ID:
        row_id = ID
    keep = None if options.keep == ALL else tuple(dict.fromkeys(filter(None, (options.keep or "").split(","))))
    for name in (text, *([row_id] if row_id is not None else []), *(keep or ())):
        if name not in names:
            raise missing(where, name, names, hint=hint)
    return Columns(text, row_id, keep)
