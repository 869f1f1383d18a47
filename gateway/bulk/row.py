"""One row of the input: a text and its id, or the reason why it has none. A reason never contains the text."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

MAX_INT64 = 2**63 - 1
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)  # the canonical form: no other string has the same value
MAX_SHOWN_CHARS, MAX_PATH_CHARS = 60, 4096
MAX_KEPT_DEPTH = 100
MARK = "\udc80"  # a lone surrogate, in place of bytes that could not be decoded

Id = int | str


class BadRow(Exception):
    """A row that cannot be embedded. Its message is the reason, for the file of rejected rows."""


class LongInteger(str):
    """A JSON integer with more digits than Python converts, as its digits."""

    __slots__ = ()


class RepeatedKeys(dict[str, Any]):
    """A JSON object with duplicate keys, listed in `repeated`. JSON does not say which value counts, so none is used."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = {name for name, number in Counter(name for name, _ in pairs).items() if number > 1}


@dataclass(frozen=True, slots=True)
class Position:
    """Where a row begins: its number and its line's, from 0, and the position from which its format can read it again. `offset` is
    a byte of the text; for Parquet the row's number in its file. `file` is an index into a folder's files."""

    row: int = 0
    offset: int = 0
    line: int = 0
    file: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """`reason` is None if the row has a text to embed. `next` is where the following row begins. `line` counts from 1."""

    number: int
    id: Id | None
    text: str
    next: Position
    reason: str | None = None
    line: int | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Column names. Without `id` a row's number is its id. `keep` are the columns that are copied to the output; None is all."""

    text: str
    id: str | None = None
    keep: tuple[str, ...] | None = ()

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that are read; if `keep` is None, there are more."""
        return tuple(dict.fromkeys([self.text, *([self.id] if self.id is not None else []), *(self.keep or ())]))


@dataclass(frozen=True, slots=True)
class Record:
    """A row as its format has it: its fields, or the reason why they cannot be read."""

    number: int
    next: Position
    fields: Mapping[str, Any]
    reason: str | None = None
    line: int | None = None

    def row(self, columns: Columns, *, is_typed: bool) -> Row:
        """Returns the row; it has a reason if it is invalid. In an untyped file an id that is written as an integer is one."""
        row_id: Id | None = None
        text, reason = "", self.reason
        try:
            if reason is None:
                row_id = None if columns.id is None else _checked_id(self.fields, columns.id)
                text = _checked_text(self.fields, columns.text)
                refuse_changed(self.fields, columns)
        except BadRow as bad:
            text, reason = "", str(bad)
        if isinstance(row_id, str) and not is_typed:
            row_id = integer_or_text(row_id)
        return Row(self.number, row_id, text, self.next, reason, self.line)


def _checked_text(fields: Mapping[str, Any], column: str) -> str:
    text = value_of(fields, column)
    if not isinstance(text, str) or isinstance(text, LongInteger):
        raise BadRow(f"its '{shown(column)}' is {kind_of(text)}, not a string")
    if not text:
        raise BadRow(f"its '{shown(column)}' is empty")
    _refuse_no_text(text, column)
    return text


def _checked_id(fields: Mapping[str, Any], column: str) -> Id:
    """Returns the id; an integer beyond 64 bits becomes a string. Raises BadRow if it is neither a string nor an integer."""
    value = value_of(fields, column)
    if isinstance(value, LongInteger | bool) or not isinstance(value, int | str):
        raise BadRow(f"its '{shown(column)}' is {kind_of(value)}, neither a string nor an integer")
    if isinstance(value, int):
        return value if -MAX_INT64 - 1 <= value <= MAX_INT64 else str(value)
    _refuse_no_text(value, column)
    return value


def value_of(fields: Mapping[str, Any], column: str) -> Any:
    if column not in fields:
        raise BadRow(f"it has no '{shown(column)}'")
    if isinstance(fields, RepeatedKeys) and column in fields.repeated:
        raise BadRow(f"it has '{shown(column)}' more than once")
    return fields[column]


def refuse_changed(fields: Mapping[str, Any], columns: Columns) -> None:
    """Raises BadRow if a kept column cannot be copied unchanged."""
    for name in fields if columns.keep is None else columns.keep:
        if name in fields:
            value = value_of(fields, name)
            _refuse_no_text(name, name)
            if isinstance(value, str):
                _refuse_no_text(value, name)
            elif _is_nested(value):
                _refuse_repeated(value, name)


def _refuse_repeated(value: Any, column: str) -> None:
    level = [value]
    for _ in range(MAX_KEPT_DEPTH):
        if any(isinstance(each, RepeatedKeys) for each in level):
            raise BadRow(f"its '{shown(column)}' has a key more than once")
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each) if _is_nested(inner)]
        if not level:
            return
    raise BadRow(f"its '{shown(column)}' is nested more than {MAX_KEPT_DEPTH} times")


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _refuse_no_text(value: str, column: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"its '{shown(column)}' has half a surrogate pair, which no text has") from None


def integer_or_text(field: str) -> Id:
    """Returns an id of an untyped file: an integer if it is the canonical form of one, else a string."""
    return int(field) if INTEGER.fullmatch(field) and -MAX_INT64 - 1 <= int(field) <= MAX_INT64 else field


def kind_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        LongInteger: "a number",
        str: "a string",
        bytes: "not UTF-8",
        list: "a list",
        dict: "an object",
        RepeatedKeys: "an object",
    }
    return kinds.get(type(value), "of another type")


def shown(word: object) -> str:
    """Returns a word from a file, or a path, for a terminal: control characters are escaped, and the length is bounded."""
    max_chars = MAX_PATH_CHARS if isinstance(word, PurePath) else MAX_SHOWN_CHARS
    escaped = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(word)[: max_chars + 1])
    return escaped if len(escaped) <= max_chars else escaped[:max_chars] + "…"
