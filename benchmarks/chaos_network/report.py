"""The table, for people and for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.chaos_network.row import Row
from benchmarks.table import aligned

COLUMNS = (
    "between",
    "fault",
    "affected callers saw",
    "the others saw",
    "longest",
    "back",
    "log",
    "metric",
    "freed",
    "probe",
    "verdict",
)


def cells(row: Row) -> tuple[str, ...]:
    return (
        row.pair, row.fault, outcomes(row.outcomes), outcomes(row.others), f"{row.longest_seconds:.1f} s",
        seconds(row.back_seconds, is_due=True), seconds(row.told_in_log, is_due=row.is_telling),
        seconds(row.told_in_metrics, is_due=row.is_telling), seconds(row.freed_seconds, is_due=False),
        f"{row.longest_probe_seconds:.2f} s", verdict(row),
    )  # fmt: skip


def outcomes(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind}: {count}" for kind, count in counts.items()) or "-"


def seconds(value: float | None, *, is_due: bool) -> str:
    return f"{value:.1f} s" if value is not None else "never" if is_due else "-"


def verdict(row: Row) -> str:
    return "well" if not row.violations else f"BAD: {'; '.join(row.violations)}"


def lines(rows: Sequence[Row]) -> str:
    return aligned([COLUMNS, *map(cells, rows)])


def markdown(rows: Sequence[Row]) -> str:
    table = [COLUMNS, tuple("---" for _ in COLUMNS), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
