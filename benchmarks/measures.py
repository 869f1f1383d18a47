"""Every measure and its bar, told once. To add one: a row here, and its sides in sides.py."""

import statistics
from dataclasses import dataclass
from typing import Literal

from benchmarks.sides import Figures


@dataclass(frozen=True)
class Bar:
    """`is_due` says that the present state of the gateway is held to it; others are shown beside the figure and not judged."""

    direction: Literal[">=", "<="]
    reach: float
    is_due: bool = True

    def is_met(self, value: float) -> bool:
        return value >= self.reach if self.direction == ">=" else value <= self.reach


@dataclass(frozen=True)
class Measure:
    """`top` and `bottom` are "side.figure" of sides.py; the value is their ratio, or `top` itself where there is no `bottom`."""

    name: str
    what: str
    top: str
    bottom: str | None
    unit: str
    bar: Bar
    note: str = ""

    @property
    def sides(self) -> list[str]:
        return [figure.partition(".")[0] for figure in (self.top, self.bottom) if figure]


@dataclass(frozen=True)
class Result:
    """A measure's values, one a round. `top` and `bottom` are the medians of its sides."""

    measure: Measure
    values: list[float]
    top: float
    bottom: float | None

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        if not self.measure.bar.is_due:
            return "to come"
        return "met" if self.measure.bar.is_met(self.value) else "missed"


MEASURES = (
    Measure(
        "bulk",
        "64 sentences a request, 4 clients: texts/s, HTTP / encode at its best batch size",
        "bulk_http.texts_per_second", "bulk_encode.texts_per_second", "x", Bar(">=", 4, is_due=False), "2.5x in float32",
    ),
    Measure(
        "kept",
        "the same: texts/s, HTTP / the engine without HTTP",
        "bulk_http.texts_per_second", "bulk_engine.texts_per_second", "%", Bar(">=", 0.85),
    ),
    Measure(
        "single",
        "one short text, one client: p50 ms, HTTP / encode([text])",
        "single_http.p50_ms", "single_encode.p50_ms", "x", Bar("<=", 1 / 3),
    ),
    Measure(
        "crowd",
        "one short text, 32 clients: tokens/s / those of bulk",
        "crowd_http.tokens_per_second", "bulk_http.tokens_per_second", "%", Bar(">=", 0.6),
    ),
    Measure("padding", "tokens of the batches, padded / real", "padding.ratio", None, "x", Bar("<=", 1.15)),
    Measure(
        "query",
        "short queries at 5/s beside 2 clients of 512 inputs a request: p99",
        "large_with_queries.p99_ms", None, "ms", Bar("<=", 150),
    ),
    Measure(
        "share",
        "those clients' tokens/s meanwhile / alone",
        "large_with_queries.tokens_per_second", "large_alone.tokens_per_second", "%", Bar(">=", 0.8),
    ),
    Measure("start", "start to /readyz 200", "start.seconds", None, "s", Bar("<=", 2.5, is_due=False), "with a compiled model"),
    Measure("memory", "resident memory after load", "memory.resident_mb", None, "MB", Bar("<=", 450, is_due=False)),
)  # fmt: skip


def result(measure: Measure, rounds: dict[str, list[Figures]]) -> Result:
    """`rounds` holds, for each side, the figures of its rounds."""
    tops = figures(measure.top, rounds)
    if measure.bottom is None:
        return Result(measure, tops, statistics.median(tops), None)
    bottoms = figures(measure.bottom, rounds)
    values = [top / bottom for top, bottom in zip(tops, bottoms, strict=True)]
    return Result(measure, values, statistics.median(tops), statistics.median(bottoms))


def figures(name: str, rounds: dict[str, list[Figures]]) -> list[float]:
    side, _, figure = name.partition(".")
    return [played[figure] for played in rounds[side]]
