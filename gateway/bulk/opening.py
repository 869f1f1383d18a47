"""From a path and what was asked to the rows of it: one file of any format, or a folder of files."""

from pathlib import Path

from gateway.bulk.json_source import JSONArray, JSONLines, JSONText
from gateway.bulk.parquet import ParquetFile
from gateway.bulk.source import Format, InputOptions, RowSource, TextLines, format_of
from gateway.bulk.stream import TextStream
from gateway.bulk.table import Table
from gateway.errors import OperatorError

TABLES = {"csv", "tsv"}


def open_file(path: Path, options: InputOptions) -> RowSource:
    """Raises OSError, and OperatorError where the file is not of its format or has not the columns asked for."""
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
    """Whether a file of JSON begins as an array does. If not, it is an object a line, or nothing."""
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
    """Raises OperatorError for an option that none of the formats heeds."""
    if (options.delimiter or options.quote) and not forms & TABLES:
        raise OperatorError("--delimiter and --quote are for CSV and TSV")
    if options.encoding and forms == {"parquet"}:
        raise OperatorError("--encoding is for texts, and Parquet has its own")
    if options.numbered and options.id_column:
        raise OperatorError("--id and --no-id contradict each other")
