"""JSON lines and JSON arrays: the objects of a file, one after another."""

from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from gateway.bulk.json_array import ArrayElements, BrokenArray
from gateway.bulk.json_object import json_object
from gateway.bulk.lines import without_end
from gateway.bulk.row import BadRow, Position, Record, RepeatedKeys, shown
from gateway.bulk.source import ID, TEXT, InputOptions, TextSource, choose_columns
from gateway.errors import OperatorError

SAMPLE_ROWS = 1000  # whose field names are taken as the file's columns
SAMPLE_BYTES = 4 * 1024 * 1024
MAX_SAMPLE_NAMES = 1000
ANSWER = {"custom_id", "response", "error"}  # the fields of its reply
REQUEST = {"custom_id", "method", "url", "body"}  # the fields of a request of a batch


class JSONLines(TextSource):
    """One object per line. Rows are numbered from 0; blank lines are no rows.

    Raises OperatorError if a requested column is in none of the first objects.
    """

    def __init__(self, path: Path, options: InputOptions) -> None:
        super().__init__(path, options)
        try:
            sample = self.sample()
            objects = [record.fields for record in sample if record.reason is None]
            if sample and not objects:
                self.refuse_no_object()
            names = list(dict.fromkeys(name for fields in objects for name in islice(fields, MAX_SAMPLE_NAMES)))
            asked = [] if objects else [options.column or "text", options.id_column, *(options.keep or "").split(",")]
            self.has_columns = bool(objects)
            hint = "is it what a batch answered? its vectors are in it" if set(names) >= ANSWER else ""
            self.columns = choose_columns(shown(path), [*names, *filter(None, asked)], options, hint=hint)
        except BaseException:
            self.close()
            raise

    def sample(self) -> list[Record]:
        found = takewhile(lambda record: record.next.offset < SAMPLE_BYTES, self.records(Position()))
        return list(islice(found, SAMPLE_ROWS)) or list(islice(self.records(Position()), 1))

    def refuse_no_object(self) -> None:
        """Raises OperatorError if the file is certainly of another format."""
        self.stream.seek(self.stream.first)
        if self.stream.read(SAMPLE_BYTES).lstrip().startswith(b"["):
            raise OperatorError(f"{shown(self.path)} holds no JSON objects a line, and begins with '[': --format json?")

    def records(self, start: Position) -> Iterator[Record]:
        lines = self.lines(start)
        number = start.row
        for line in lines:
            if line is None or line.strip():
                yield self.record(
                    number, line and without_end(line), Position(number + 1, lines.offset, lines.number), lines.number
                )
                number += 1

    def record(self, number: int, content: bytes | None, following: Position, line: int | None = None) -> Record:
        try:
            return Record(number, following, _as_row(json_object(self.text(content))), line=line)
        except BadRow as bad:
            return Record(number, following, {}, str(bad), line)


def _as_row(fields: dict[str, Any]) -> dict[str, Any]:
    """Adds `id` and `text` to a request of OpenAI's Batch API, which has them in `custom_id` and in its body's `input`."""
    body = fields.get("body")
    if not isinstance(body, dict) or not fields.keys() >= REQUEST or isinstance(fields, RepeatedKeys):
        return fields
    text = body.get("input")
    if isinstance(text, list) and len(text) == 1:
        text = text[0]
    return {**fields, ID: fields["custom_id"], TEXT: text}


class JSONText(JSONLines):
    """A file named .json that is not an array: one object per line, or an error."""

    def refuse_no_object(self) -> None:
        raise OperatorError(f"{shown(self.path)} is neither a JSON array nor an object a line, the two forms of JSON that are read")


class JSONArray(JSONLines):
    """The elements of one array, numbered from 0. Raises OperatorError if the array does not end."""

    def refuse_no_object(self) -> None:
        """Does nothing: an array without objects is not certainly of another format."""

    def records(self, start: Position) -> Iterator[Record]:
        elements = ArrayElements(self.stream, offset=start.offset or self.stream.first, is_begun=start.offset > 0)
        try:
            for number, element in enumerate(elements, start.row):
                yield self.record(number, element, Position(number + 1, elements.offset))
        except BrokenArray as broken:
            raise OperatorError(f"{shown(self.path)}: {broken}") from None
