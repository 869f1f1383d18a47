"""The table, and where the gateway is not the fastest of those whose vectors are as near to encode's."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.peers.fixed_work import Done, percentile
from benchmarks.peers.lineup import OURS
from benchmarks.table import aligned, short

AS_NEAR = 5e-6  # cosines that differ by less count as equal
NO_SERVER = "no server"
OTHER_MODEL_BELOW = 0.9  # no precision of the same weights is so far from encode


@dataclass(frozen=True)
class Column:
    """One kind of work. `is_rate`: more texts a second are better; otherwise the time of one text, p50 and p99."""

    name: str
    heading: str
    is_rate: bool


COLUMNS = (
    Column("bulk mixed", "bulk, mixed: texts/s", is_rate=True),
    Column("bulk chunks", "bulk, chunks: texts/s", is_rate=True),
    Column("crowd", "32 clients: texts/s", is_rate=True),
    Column("alone short", "alone, short: p50 / p99 ms", is_rate=False),
    Column("alone mixed", "alone, mixed: p50 / p99 ms", is_rate=False),
    Column("alone chunks", "alone, chunks: p50 / p99 ms", is_rate=False),
)


@dataclass
class Row:
    """What was seen of one peer. `absence` is why there is nothing at all; `failures` are by column."""

    name: str
    absence: str = ""
    threads: str = ""
    worst_cosine: float = -1.0
    start_seconds: float = 0.0
    memory_at_start_mb: float = 0.0
    memory_after_mb: float = 0.0
    rounds: dict[str, list[Done]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def figure(self, column: Column) -> float | None:
        """The median of the rounds: texts a second, or the p50 of all rounds' texts in ms."""
        rounds = self.rounds.get(column.name)
        if not rounds or column.name in self.failures:
            return None
        if column.is_rate:
            return statistics.median(each.texts_per_second for each in rounds)
        return 1000 * percentile([took for each in rounds for took in each.took], 0.5)

    def cell(self, column: Column) -> str:
        figure = self.figure(column)
        if figure is None:
            return self.failures.get(column.name, NO_SERVER)
        if column.is_rate:
            return short(figure)
        return (
            f"{short(figure)} / {short(1000 * percentile([took for each in self.rounds[column.name] for took in each.took], 0.99))}"
        )


@dataclass(frozen=True)
class Recorded:
    """Figures of another machine and day, for who cannot be run here."""

    name: str
    bulk: int
    crowd: int | None
    p50_ms: float
    p99_ms: float
    worst_cosine: str


RECORDED_WHERE = (
    "recorded elsewhere: two Zen 3 cores without bfloat16, quiet, 40 tokens a text, TEI 1.9.3 and llama.cpp from source"
)
RECORDED = (
    Recorded("gateway, float32", 158, 139, 9.1, 49, "1.000000"),
    Recorded("TEI, ONNX Runtime", 79, 73, 7.2, 25, "1.000000"),
    Recorded("TEI, candle + MKL", 66, 63, 8.9, 32, "0.99999"),
    Recorded("llama.cpp, F16", 106, 98, 9.5, 33, "0.99999"),
    Recorded("llama.cpp, Q8_0", 90, 84, 10.3, 38, "0.99910"),
    Recorded("infinity, torch", 92, 86, 21.7, 42, "1.000000"),
    Recorded("encode", 108, None, 14.1, 31, "1"),
)


def table(rows: Sequence[Row]) -> str:
    """A row a peer; the reasons of those that are absent stand below."""
    head = ["", *(column.heading for column in COLUMNS), "worst cosine", "MB at start / after", "start s", "threads"]
    cells = [
        [
            row.name, *map(row.cell, COLUMNS), f"{row.worst_cosine:.6f}",
            f"{row.memory_at_start_mb:.0f} / {row.memory_after_mb:.0f}", short(row.start_seconds), row.threads,
        ]
        for row in rows if not row.absence
    ]  # fmt: skip
    absences = [f"{row.name}: {row.absence}" for row in rows if row.absence]
    return "\n".join([aligned([head, *cells]), *([""] if absences else []), *absences])


def recorded() -> str:
    """What is told in the place of text-embeddings-inference where its binary is not found."""
    head = ["", "bulk: texts/s", "32 clients: texts/s", "alone: p50 / p99 ms", "worst cosine"]
    cells = [
        [each.name, str(each.bulk), str(each.crowd or NO_SERVER), f"{each.p50_ms:g} / {each.p99_ms:g}", each.worst_cosine]
        for each in RECORDED
    ]
    return f"{RECORDED_WHERE}\n{aligned([head, *cells])}"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """A line for each column in which a peer is not beaten by a gateway of at least its fidelity."""
    ours = [row for row in rows if row.name.startswith(OURS) and not row.absence]
    peers = [row for row in rows if not row.name.startswith(OURS) and not row.absence]
    others = [peer for peer in peers if peer.worst_cosine < OTHER_MODEL_BELOW]
    lines = [line for peer in peers if peer not in others for column in COLUMNS if (line := _verdict(column, peer, ours))]
    lines += [f"{peer.name} gives other vectors: another model, for scale" for peer in others]
    return (
        lines if len(lines) > len(others) else [*lines, "the gateway is the fastest in every column, at equal or better fidelity"]
    )


def _verdict(column: Column, peer: Row, ours: Sequence[Row]) -> str:
    theirs = peer.figure(column)
    if theirs is None:
        return ""
    as_near = [row for row in ours if row.worst_cosine >= peer.worst_cosine - AS_NEAR and row.figure(column) is not None]
    best: Callable[..., Row] = max if column.is_rate else min
    if not as_near:
        return f"not faster than {peer.name}, {column.name}: no gateway here has its fidelity of {peer.worst_cosine:.6f}"
    row = best(as_near, key=lambda each: each.figure(column))
    figure = row.figure(column) or 0.0
    if figure > theirs if column.is_rate else figure < theirs:
        return ""
    unit = "texts/s" if column.is_rate else "ms"
    return f"not faster than {peer.name}, {column.name}: {row.name} {short(figure)} against {short(theirs)} {unit}"
