"""One row of the input: a text and its id, or the reason why there is none. Reasons never hold a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_INT64 = 2**63 - 1

Id = int | str


class BadRow(Exception):
    """A row that cannot be embedded. Its text is the reason, for the file of rejected rows."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row begins: its number, from 0, and what its format needs to find it again; lines begin at a byte."""

    row: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """`reason` is None where the row has a text to embed; `next` is where the row after it begins."""

    number: int
    id: Id | None
    text: str
    next: Place
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """By their names; without `id` a row's number is its id."""

    text: str
    id: str | None = None


def row_of(record: Mapping[str, Any], columns: Columns, number: int, following: Place) -> Row:
    """The row that a record holds, whatever that is."""
    row_id: Id | None = None
    try:
        row_id = number if columns.id is None else checked_id(record, columns.id)
        return Row(number, row_id, checked_text(record, columns.text), following)
    except BadRow as bad:
        return Row(number, row_id, "", following, str(bad))


def bad_row(reason: str, number: int, following: Place, *, has_id_column: bool) -> Row:
    """A row of which not even the columns can be told."""
    return Row(number, None if has_id_column else number, "", following, reason)


def checked_text(record: Mapping[str, Any], column: str) -> str:
    if column not in record:
        raise BadRow(f"it has no '{column}'")
    text = record[column]
    if not isinstance(text, str):
        raise BadRow(f"its '{column}' is {kind_of(text)}, not a string")
    if not text:
        raise BadRow(f"its '{column}' is empty")
    return text


def checked_id(record: Mapping[str, Any], column: str) -> Id:
    """Raises BadRow unless it is a string or an integer; one beyond 64 bits becomes a string."""
    if column not in record:
        raise BadRow(f"it has no '{column}'")
    value = record[column]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise BadRow(f"its '{column}' is {kind_of(value)}, neither a string nor an integer")
    if isinstance(value, int) and not -MAX_INT64 - 1 <= value <= MAX_INT64:
        return str(value)
    return value


def kind_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        bytes: "not UTF-8",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), "of another type")
