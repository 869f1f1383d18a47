"""Any input that `gateway embed` reads, as lines of requests: by its readers. Run in a process of its own, `python -m` this module.

Parsers of compressed files, tables and Parquet thus take no time of the event loop and of its threads, and a file that was made to
crash or to fill one takes nothing with it: the process has MAX_MEMORY_BYTES, and is the first that a full machine ends.
"""

import json
import os
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.bulk.json_array import ArrayElements, BrokenArray
from gateway.bulk.json_object import decoded
from gateway.bulk.json_source import REQUEST
from gateway.bulk.lines import Lines, without_end
from gateway.bulk.open_input import is_array, open_file, refuse_ignored
from gateway.bulk.parquet import ParquetFile
from gateway.bulk.row import Columns, Position, Record, Row, shown
from gateway.bulk.source import ID, TEXT, TOO_LONG, Format, InputOptions, TextSource, format_by_name
from gateway.bulk.stream import TextStream, is_packed
from gateway.errors import OperatorError
from gateway.wire.batch_lines import REJECTED, is_blank
from gateway.wire.batches import InputFormat

MAX_MEMORY_BYTES = 4 * 1024**3  # of addresses: pyarrow's alone take more than one
MAX_BLANK_LINES = 1000  # before the first request
PARQUET = b"PAR1"
MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, and of UTF-32 in part
NICENESS = 5
FAILED = 2  # the exit code if the last line of the output is the reason, as a JSON string
UNREADABLE = 3  # the exit code if the disk does not give the file
OPTION = re.compile(r"--(no-id|format|column|id|delimiter|quote|encoding)\b")


class Conversion(Struct, frozen=True):
    """An order for the process. At most `max_rows` rows are written, and one more; `max_bytes` bounds their texts."""

    path: str
    filename: str
    endpoint: str
    input_format: InputFormat
    max_rows: int
    max_bytes: int


def is_plain(head: bytes, first: bytes, filename: str, asked: InputFormat) -> bool:
    """Whether a file has a request in each line already. `first` is its first line that is not blank."""
    if is_packed(head) or head.startswith((PARQUET, *MARKS)) or asked.encoding or _form_of(head, filename, asked) != "jsonl":
        return False
    fields = _fields_of(first)
    if fields is None:  # in lines that end with CR alone, the first one is many
        return b"\r" not in first.strip()
    return not _is_row(fields, asked)


def _form_of(head: bytes, filename: str, asked: InputFormat) -> Format:
    """What begins with an object is JSON lines, whatever its name; what begins otherwise is what its name says."""
    if asked.format is not None:
        return asked.format
    if head.startswith(PARQUET):
        return "parquet"
    is_object = head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    return "jsonl" if is_object else format_by_name(Path(filename)) or "jsonl"


def _is_row(fields: dict[str, object], asked: InputFormat) -> bool:
    """Whether an object is a row with a text, rather than a request."""
    return asked.column is not None or (TEXT in fields and not fields.keys() & REQUEST)


def _fields_of(content: bytes) -> dict[str, object] | None:
    """The object that a line holds, as `gateway embed` reads it; None if it holds none."""
    try:
        found = decoded(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def request_lines(order: Conversion) -> Iterator[bytes]:
    """Yields lines of requests. Raises OSError, and OperatorError if the file cannot be read."""
    path, asked = Path(order.path), order.input_format
    options = InputOptions(
        column=asked.column, id_column=asked.id, numbered=bool(asked.no_id), delimiter=asked.delimiter, quote=asked.quote,
        encoding=asked.encoding, max_bytes=order.max_bytes,
    )  # fmt: skip
    options = replace(options, form=_form_of(_head(path, options), order.filename, asked))
    refuse_ignored(options, {options.form} if options.form else set())
    if options.form in {"jsonl", "json"}:
        first = next((each for each in islice(_contents(path, options), MAX_BLANK_LINES) if each and not is_blank(each)), b"")
        if not _is_row(_fields_of(first) or {}, asked):
            yield from map(_request_line, _contents(path, options))
            return
    yield from _row_lines(path, options, order)


def _head(path: Path, options: InputOptions) -> bytes:
    with path.open("rb") as file:
        if file.read(len(PARQUET)) == PARQUET:
            return PARQUET
    stream = TextStream(path, options.encoding, max_bytes=options.max_bytes)
    try:
        stream.seek(stream.first)
        return stream.read(4096)
    finally:
        stream.close()


def _contents(path: Path, options: InputOptions) -> Iterator[bytes | None]:
    """Yields the lines, or the elements of an array, without their ends; None for one that is too long."""
    is_list = options.form == "json" and is_array(path, options)
    stream = TextStream(path, options.encoding, max_bytes=options.max_bytes)
    try:
        if is_list:
            for element in ArrayElements(stream, offset=stream.first, is_begun=False):
                # Between two words of JSON a tab is as good as a line's end, and inside a string as wrong.
                yield element and element.replace(b"\n", b"\t").replace(b"\r", b"\t")
        else:
            for line in Lines(stream, offset=stream.first):
                yield line and without_end(line)
    except BrokenArray as broken:
        raise OperatorError(f"{shown(path)}: {broken}") from None
    finally:
        stream.close()


def _request_line(content: bytes | None) -> bytes:
    return (json.dumps({REJECTED: TOO_LONG}).encode() if content is None else content) + b"\n"


def _row_lines(path: Path, options: InputOptions, order: Conversion) -> Iterator[bytes]:
    if order.endpoint != "/v1/embeddings":
        raise OperatorError(f"{shown(path)} has rows with a text, and these are requests of /v1/embeddings alone")
    source = open_file(path, options)
    if not isinstance(source, TextSource | ParquetFile):
        raise TypeError(type(source))
    num_bytes = 0
    try:
        if isinstance(source, ParquetFile):
            _refuse_large(source, order.max_bytes)
        for record in islice(source.records(Position()), order.max_rows + 1):
            row = record.row(_columns_of(record, source.columns, options), is_typed=source.is_typed)
            num_bytes += len(row.text)
            if num_bytes > order.max_bytes:
                raise OperatorError(f"{shown(path)} has more than {order.max_bytes:,} bytes of text")
            yield _row_line(row, order.endpoint)
    finally:
        source.close()


def _columns_of(record: Record, columns: Columns, options: InputOptions) -> Columns:
    """A row without an id has the number of its line, unless the client named the column."""
    has_id = columns.id is None or options.id_column is not None or ID in record.fields
    return columns if has_id else replace(columns, id=None)


def _row_line(row: Row, endpoint: str) -> bytes:
    custom_id = str(row.line or row.number + 1) if row.id in {None, ""} else str(row.id)
    reason = "its id is empty" if row.id == "" and row.reason is None else row.reason
    if reason is not None:
        return msgspec.json.encode({"custom_id": custom_id, REJECTED: reason}) + b"\n"
    request = {"custom_id": custom_id, "method": "POST", "url": endpoint, "body": {"input": row.text}}
    return msgspec.json.encode(request) + b"\n"


def _refuse_large(source: ParquetFile, max_bytes: int) -> None:
    about = source.file.metadata
    groups = (about.row_group(group) for group in range(about.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    if sum(column.total_uncompressed_size for column in columns if column.path_in_schema in source.names) > max_bytes:
        raise OperatorError(f"{shown(source.path)} has more than {max_bytes:,} bytes of text")


def _main() -> int:
    order = msgspec.json.decode(sys.argv[1], type=Conversion)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with open(sys.stdout.fileno(), "wb", buffering=256 * 1024, closefd=False) as output:
        try:
            output.writelines(request_lines(order))
        except OperatorError as error:
            reason = OPTION.sub(r"input_format.\1", str(error).replace(shown(Path(order.path)), "the file"))
            output.write(b"\n" + msgspec.json.encode(reason.replace("input_format.no-id", "input_format.no_id")))
            return FAILED
        except OSError:
            return UNREADABLE
    return 0


if __name__ == "__main__":
    sys.exit(_main())
