"""The rows of a folder's files, in the order of the file names. Row numbers continue from file to file."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gateway.bulk.open_input import open_file, refuse_ignored
from gateway.bulk.row import Columns, Position, Row, shown
from gateway.bulk.source import InputOptions, RowSource, TextLines, format_by_name, format_of
from gateway.errors import OperatorError

HIDDEN = (".", "_")  # as in Spark and Hive: _SUCCESS, .part-0.crc
MAX_NAMED = 5


class Folder:
    """A RowSource over all files of a folder. `passed_over` are the files whose names show no such format.

    Raises OperatorError if there is no file to read, or if two differ in the column of their ids.
    """

    has_columns = True

    def __init__(self, path: Path, options: InputOptions) -> None:
        self.path = path
        self.options = options
        self.files, self.passed_over = files_of(path, options)
        if not self.files:
            raise OperatorError(f"{shown(path)} holds no file of a known format" + _describe_passed_over(self.passed_over))
        self.forms = {format_of(file, options.form) for file in self.files}
        refuse_ignored(options, self.forms)
        self.sizes = [file.stat().st_size for file in self.files]
        self.current: tuple[int, RowSource] | None = None
        self.is_typed = not self.forms & {"csv", "tsv"}
        self.notes = (
            [f"{shown(path)}: {len(self.files):,} files to read{_describe_passed_over(self.passed_over)}"]
            if self.passed_over
            else []
        )
        self.columns = self.common_columns()

    def common_columns(self) -> Columns:
        """Opens every file once, so that an unreadable one fails at the start and not in the middle of a run."""
        first: tuple[Path, Columns] | None = None
        for file in self.files:
            source = open_file(file, self.options)
            source.close()
            self.notes += source.notes[: MAX_NAMED - len(self.notes)]
            if not source.has_columns:
                continue
            if first is None:
                first = file, source.columns
            elif source.columns.id != first[1].id:
                ids = f"'{shown(first[1].id)}'" if first[1].id else "none"
                raise OperatorError(
                    f"{shown(file)} has {shown(source.columns.id) if source.columns.id else 'no column'} for its ids,"
                    f" and {shown(first[0])} has {ids}: --id names one that all have, --no-id numbers the rows"
                )
        return first[1] if first is not None else source.columns

    def open(self, index: int) -> RowSource:
        source = open_file(self.files[index], self.options)
        if not isinstance(source, TextLines):
            source.columns = self.columns
        self.current = index, source
        return source

    def rows(self, start: Position) -> Iterator[Row]:
        position = start
        for index in range(start.file, len(self.files)):
            self.close()
            source, name = self.open(index), name_of(self.files[index].relative_to(self.path))
            for row in source.rows(position):
                position = replace(row.next, file=index)
                yield replace(row, next=position, file=name)
            position = Position(position.row, file=index + 1)

    def share(self, position: Position) -> float:
        done = sum(self.sizes[: position.file])
        if self.current is not None and self.current[0] == position.file:
            done += round(self.current[1].share(position) * self.sizes[position.file])
        return done / (sum(self.sizes) or 1)

    def close(self) -> None:
        if self.current is not None:
            self.current[1].close()
            self.current = None


def files_of(folder: Path, options: InputOptions) -> tuple[list[Path], list[str]]:
    """Returns the files to read, subfolders included, and the names of the other files.

    If a format is asked for, the files with its endings are read, or all files if none has.
    """
    every = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path.relative_to(folder))]
    formats = {path: format_by_name(path) for path in every}
    found = [path for path in every if formats[path] is not None and options.form in {None, formats[path]}]
    if not found and options.form is not None:
        found = every
    chosen = set(found)
    return found, [name_of(path.relative_to(folder)) for path in every if path not in chosen]


def name_of(path: Path) -> str:
    """Returns a file's name as it can stand in JSON: bytes that are invalid UTF-8 are escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(HIDDEN) for part in name.parts)


def _describe_passed_over(passed_over: list[str]) -> str:
    """Returns the end of a sentence about files that are not read; empty if there are none."""
    if not passed_over:
        return ""
    names = ", ".join(map(shown, passed_over[:MAX_NAMED])) + ", …" * (len(passed_over) > MAX_NAMED)
    return f"; {len(passed_over):,} passed over, whose names show no such format: {names}"


def open_input(path: Path, options: InputOptions) -> RowSource:
    """Opens a file or a folder. Raises OSError, and OperatorError if it cannot be read with these options."""
    if path.is_dir():
        return Folder(path, options)
    refuse_ignored(options, {format_of(path, options.form)})
    return open_file(path, options)
