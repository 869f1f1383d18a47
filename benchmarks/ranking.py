"""What is told of each contender, beside the others: figures, and how many times better the gateway is."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.contender import ENCODE, Contender
from benchmarks.program import GATEWAY
from benchmarks.sides import Figures
from benchmarks.table import aligned, short


@dataclass(frozen=True)
class Column:
    """`figure` is of `side`, in sides.py, or of `encode_side` where encode itself can run without HTTP."""

    name: str
    unit: str
    what: str
    side: str
    figure: str
    encode_side: str | None = None

    @property
    def heading(self) -> str:
        return f"{self.what}: {self.unit}"

    def side_of(self, contender: Contender) -> str | None:
        return self.encode_side if contender.name == ENCODE else self.side

    def times_better(self, ours: float, theirs: float) -> float:
        return ours / theirs if self.unit.endswith("/s") else theirs / ours


COLUMNS = (
    Column("bulk", "texts/s", "64 texts a request, 4 clients", "bulk_http", "texts_per_second", "bulk_encode"),
    Column("crowd", "texts/s", "one short text a request, 32 clients", "crowd_http", "texts_per_second"),
    Column("single", "p50 ms", "one short text a request, 1 client", "single_http", "p50_ms", "single_encode"),
    Column("memory", "MB", "resident after load", "memory", "resident_mb"),
    Column("start", "s", "from exec to ready", "start", "seconds"),
)
LEGEND = (
    "; ".join(f"{column.name}: {column.what}" for column in COLUMNS),
    "in brackets: how many times better the gateway is, by the median of the rounds' own ratios",
    "cosine: the lowest of a reply's vectors to those of encode",
)

Plays = dict[tuple[str, str], list[float]]  # contender and column -> a figure a round


def play_name(contender: Contender, column: Column) -> str:
    return f"{contender.name}: {column.side_of(contender)}"


def sorted_out(contenders: Sequence[Contender], rounds: dict[str, list[Figures]]) -> Plays:
    """`rounds` by the names of plays; absent contenders, and columns encode has no part in, are not among them."""
    return {
        (contender.name, column.name): [figures[column.figure] for figures in rounds[play_name(contender, column)]]
        for contender in contenders
        for column in COLUMNS
        if play_name(contender, column) in rounds
    }


def medians(column: Column, contenders: Sequence[Contender], plays: Plays) -> dict[str, float]:
    found = {contender.name: plays.get((contender.name, column.name)) for contender in contenders}
    return {name: statistics.median(values) for name, values in found.items() if values}


def ranking(contenders: Sequence[Contender], plays: Plays) -> str:
    """A row a contender; one that is absent has its reason there."""
    width = max(len(contender.name) for contender in contenders)
    head = ["server".ljust(width), *(f"{column.name}, {column.unit}" for column in COLUMNS), "cosine"]
    present = [cells(contender, plays) for contender in contenders if contender.sides]
    absent = [f"{contender.name.ljust(width)}  {contender.absence}" for contender in contenders if not contender.sides]
    return "\n".join([aligned([head, *present]), *absent])


def cells(contender: Contender, plays: Plays) -> list[str]:
    figures = [cell(column, plays[GATEWAY.name, column.name], plays.get((contender.name, column.name))) for column in COLUMNS]
    return [contender.name, *figures, f"{contender.worst_cosine:.5f}"]


def cell(column: Column, ours: list[float], theirs: list[float] | None) -> str:
    if theirs is None:
        return "-"
    shown = short(statistics.median(theirs))
    return shown if theirs is ours else f"{shown} ({statistics.median(map(column.times_better, ours, theirs)):.1f}x)"
