"""Opens a file as the rows of its format."""

from pathlib import Path

from gateway.bulk.json_source import JSONArray, JSONLines, JSONText
from gateway.bulk.parquet import ParquetFile
from gateway.bulk.source import Format, InputOptions, RowSource, TextLines, format_of
from gateway.bulk.stream import TextStream
from gateway.bulk.table import Table
from gateway.errors import OperatorError

TABLES = {"csv", "tsv"}


def open_file(path: Path, options: InputOptions) -> RowSource:
    """Opens one file. Raises OSError, and OperatorError if it is not of its format or lacks a requested column."""
    form = format_of(path, options.form)
    if form == "parquet":
        return ParquetFile(path, options)
    if form == "text":
        return TextLines(path, options)
    if form in TABLES:
        return Table(path, options, form=form)
    if form == "jsonl":
        return JSONLines(path, options)
    return JSONArray(path, options) if is_array(path, options) else JSONText(path, options)


def is_array(path: Path, options: InputOptions) -> bool:
    """Whether a JSON file begins with `[`. If not, it has an object per line, or nothing."""
    stream = TextStream(path, options.encoding)
    try:
        stream.seek(stream.first)
        while chunk := stream.read(4096):
            if begin := chunk.strip():
                return begin.startswith(b"[")
        return False
    finally:
        stream.close()


def refuse_ignored(options: InputOptions, forms: set[Format]) -> None:
    """Raises OperatorError for an option that none of the formats uses, and for options that contradict each other."""
    if (options.delimiter or options.quote) and not forms & TABLES:
        raise OperatorError("--delimiter and --quote are for CSV and TSV")
    if options.encoding and forms == {"parquet"}:
        raise OperatorError("--encoding is for texts, and Parquet has its own")
    if options.numbered and options.id_column:
        raise OperatorError("--id and --no-id contradict each other")
