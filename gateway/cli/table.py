"""Formats a table for a terminal: each column is as wide as its widest cell."""

from collections.abc import Sequence


def align(heading: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """The table as text. The columns in `right` are right-aligned, for numbers. The last column is not padded."""
    whole = [heading, *rows]
    widths = [max(len(row[column]) for row in whole) for column in range(len(heading))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in whole
    )
