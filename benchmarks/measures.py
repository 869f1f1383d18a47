"""Every measure and its bar, told once. To add one: a row here, and its sides in sides.py."""

import statistics
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.machine import has_native_bfloat16
from benchmarks.past import PAST_BAR_TOKENS
from benchmarks.sides import Figures


@dataclass(frozen=True)
class Bar:
    """What must be reached, and what is aimed at. One that `is_judged` not is shown beside the figure, and `note` says why."""

    direction: Literal[">=", "<="]
    reach: float
    aim: float
    is_judged: bool = True
    note: str = ""

    def verdict(self, value: float) -> str:
        if not self.is_judged:
            return "not judged"
        if not self.is_met(value, self.reach):
            return "missed"
        return "aim met" if self.is_met(value, self.aim) else "met"

    def is_met(self, value: float, target: float) -> bool:
        return value >= target if self.direction == ">=" else value <= target


@dataclass(frozen=True)
class Measure:
    """`top` and `bottom` are "side.figure" of sides.py; the value is their ratio, or their difference where it `is_difference`, or
    `top` itself where there is no `bottom`.

    Where there is no `top` either the gateway has no such thing yet.
    """

    name: str
    what: str
    top: str | None
    bottom: str | None
    unit: str
    bar: Bar
    is_difference: bool = False

    @property
    def sides(self) -> list[str]:
        return [figure.partition(".")[0] for figure in (self.top, self.bottom) if figure]


@dataclass(frozen=True)
class Result:
    """A measure's values, one a round, none where it is to come. `top` and `bottom` are the medians of its sides."""

    measure: Measure
    values: list[float]
    top: float | None = None
    bottom: float | None = None

    @property
    def value(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def verdict(self) -> str:
        return "to come" if self.value is None else self.measure.bar.verdict(self.value)


KEEPS: dict[str, tuple[str, Bar]] = {  # a figure of recall.py, by what it is kept, and its bar
    "int8": ("int8 or uint8, by the dot product of codes", Bar(">=", 0.95, aim=0.98)),
    "binary": ("binary, by Hamming's distance", Bar(">=", 0.5, aim=0.6)),
    "binary_rescored": ("binary, the nearest 40 sorted by float32", Bar(">=", 0.85, aim=0.9)),
    "binary_rescored_int8": ("binary, the nearest 40 sorted by a float32 query and int8 documents", Bar(">=", 0.85, aim=0.9)),
    "float_short": ("float32 of 128 dimensions", Bar(">=", 0.5, aim=0.6)),
    "binary_short": ("binary of 128 dimensions", Bar(">=", 0.25, aim=0.35)),
    "binary_short_rescored": ("binary of 128 dimensions, the nearest 40 sorted by float32", Bar(">=", 0.5, aim=0.6)),
}
RECALL = tuple(
    Measure(f"recall {figure.replace('_', ' ')}", f"of the ten nearest, kept by {what}", f"recall.{figure}", None, "%", bar)
    for figure, (what, bar) in KEEPS.items()
)
MEASURES = (
    Measure(
        "bulk",
        "64 sentences a request, 4 clients: texts/s, HTTP / encode at its best batch size",
        "bulk_http.texts_per_second", "bulk_encode.texts_per_second", "x", Bar(">=", 4, aim=5.3),
    ),
    Measure(
        "float32",
        "the same in float32",
        "bulk_float32.texts_per_second", "bulk_encode.texts_per_second", "x", Bar(">=", 2.5, aim=3.1),
    ),
    Measure(
        "kept",
        "the same as bulk: texts/s, HTTP / the engine without HTTP",
        "bulk_http.texts_per_second", "bulk_engine.texts_per_second", "%", Bar(">=", 0.85, aim=0.95),
    ),
    Measure(
        "int8",
        "the same as bulk, output_dtype int8 in base64: texts/s / those of float32 in base64",
        "bulk_int8.texts_per_second", "bulk_http.texts_per_second", "%", Bar(">=", 0.95, aim=0.98),
    ),
    Measure(
        "binary",
        "the same, binary",
        "bulk_binary.texts_per_second", "bulk_http.texts_per_second", "%", Bar(">=", 0.95, aim=0.98),
    ),
    *RECALL,
    Measure(
        "single",
        "one short text, one client: p50 ms, HTTP / encode([text])",
        "single_http.p50_ms", "single_encode.p50_ms", "x", Bar("<=", 1 / 3, aim=1 / 5),
    ),
    Measure(
        "crowd",
        "one short text, 32 clients: tokens/s / those of bulk",
        "crowd_http.tokens_per_second", "bulk_http.tokens_per_second", "%", Bar(">=", 0.6, aim=0.8),
    ),
    Measure(
        "cached",
        "one and the same short text, 16 clients, a gateway on one core: requests/s",
        "same_cached.requests_per_second", None, "/s", Bar(">=", 4000, aim=8000),
    ),
    Measure(
        "limits",
        "the same, one client: p50 added by a key with limits, to no key at all",
        "one_limited.p50_us", "one_open.p50_us", "us", Bar("<=", 100, aim=50), is_difference=True,
    ),
    Measure(
        "shared limits",
        "the same, the limits counted by Redis on this machine",
        "one_shared.p50_us", "one_open.p50_us", "us", Bar("<=", 1000, aim=400), is_difference=True,
    ),
    Measure(
        "fair",
        "1 client of 2048 sentences a request, 64 clients of another key with 1, 30 s: the smaller share of tokens / the larger",
        "fair.ratio", None, "%", Bar(">=", 0.9, aim=0.95),
    ),
    Measure(
        "query",
        "short queries at 5/s beside 2 clients of 512 inputs a request: p99",
        "large_with_queries.p99_ms", None, "ms", Bar("<=", 150, aim=60),
    ),
    Measure(
        "share",
        "those clients' tokens/s meanwhile / alone",
        "large_with_queries.tokens_per_second", "large_alone.tokens_per_second", "%", Bar(">=", 0.8, aim=0.95),
    ),
    Measure(
        "past",
        "short texts at 5/s beside a new key's 8 clients of 64 x 252 tokens: p99, a key with {past_tokens:,} tokens of past / none",
        "text_with_past.p99_ms", "text_without_past.p99_ms", "x", Bar("<=", 2, aim=1.2),
    ),
    Measure("past query", "the same key's p99", "text_with_past.p99_ms", None, "ms", Bar("<=", 150, aim=100)),
    Measure(
        "rerank",
        "a query and 64 sentences a request, 4 clients: pairs/s, HTTP / CrossEncoder.predict at its best batch size",
        "pairs_rerank.pairs_per_second", "pairs_predict.pairs_per_second", "x", Bar(">=", 3, aim=4),
    ),
    Measure(
        "rerank float32",
        "the same in float32",
        "pairs_rerank32.pairs_per_second", "pairs_predict.pairs_per_second", "x", Bar(">=", 1.4, aim=2),
    ),
    Measure(
        "rerank hundred",
        "a query and 100 documents of 100 tokens, one client: p50 ms, HTTP / predict",
        "hundred_rerank.p50_ms", "hundred_predict.p50_ms", "x", Bar("<=", 1, aim=1 / 3, is_judged=False),
    ),
    Measure("padding", "tokens of the batches, padded / real", "padding.ratio", None, "x", Bar("<=", 1.15, aim=1.10)),
    Measure("start", "start to /readyz 200, with a compiled model", "start.seconds", None, "s", Bar("<=", 2.5, aim=1.2)),
    Measure("memory", "resident memory after load", "memory.resident_mb", None, "MB", Bar("<=", 450, aim=330)),
    Measure(
        "growth",
        "its growth in {minutes:g} minutes of mixed load after a warm-up",
        "growth.growth", None, "%", Bar("<=", 0.05, aim=0.01),
    ),
    Measure(
        "upstream",
        "what the road to another server adds to one short text, one client: p50",
        "added_upstream.p50_ms", None, "ms", Bar("<=", 2, aim=1),
    ),
    Measure(
        "upstream rate",
        "the same road, 32 clients, a gateway on one core: requests/s",
        "rate_upstream.requests_per_second", None, "/s", Bar(">=", 1500, aim=3000),
    ),
    Measure(
        "scrape",
        "/metrics of a gateway with 20 models and 100 keys: p50",
        "scrape_crowded.p50_ms", None, "ms", Bar("<=", 20, aim=15),
    ),
)  # fmt: skip
ONCE = ("growth", "recall")  # sides that are run after the last round, and not in every one
GROWTH_BAR_MINUTES = 60
GROUPS = {  # further names of --only
    "dtypes": ("int8", "binary"),
    "recall": tuple(measure.name for measure in RECALL),
    "rerank": tuple(name for name in (measure.name for measure in MEASURES) if name.startswith("rerank")),
}


def chosen(names: list[str] | None, growth_minutes: float, past_tokens: int) -> list[Measure]:
    """Those named, or all. Growth's bar is one of an hour, a past's one of ten million tokens: less does not judge them."""
    special = {
        "growth": lambda measure: grown(measure, growth_minutes),
        "past": lambda measure: aged(measure, past_tokens),
        "past query": lambda measure: aged(measure, past_tokens, is_fast=has_native_bfloat16()),
    }
    if not has_native_bfloat16():
        special["rerank"] = lambda measure: replace(
            measure, bar=replace(measure.bar, is_judged=False, note="where bfloat16 is native")
        )
    wanted = {each for name in names or () for each in GROUPS.get(name, (name,))}
    measures = [measure for measure in MEASURES if not names or measure.name in wanted]
    return [special.get(measure.name, lambda same: same)(measure) for measure in measures]


def grown(measure: Measure, minutes: float) -> Measure:
    is_judged = minutes >= GROWTH_BAR_MINUTES
    bar = replace(measure.bar, is_judged=is_judged, note="" if is_judged else "in an hour")
    return replace(measure, what=measure.what.format(minutes=minutes), bar=bar)


def aged(measure: Measure, num_tokens: int, *, is_fast: bool = True) -> Measure:
    is_whole = num_tokens >= PAST_BAR_TOKENS
    note = "" if is_whole else f"with {PAST_BAR_TOKENS:,} tokens"
    bar = replace(measure.bar, is_judged=is_whole and is_fast, note=note if is_fast else "where bfloat16 is native")
    return replace(measure, what=measure.what.format(past_tokens=num_tokens), bar=bar)


def result(measure: Measure, rounds: dict[str, list[Figures]]) -> Result:
    """`rounds` holds, for each side, the figures of its rounds."""
    if measure.top is None:
        return Result(measure, [])
    tops = figures(measure.top, rounds)
    if measure.bottom is None:
        return Result(measure, tops, statistics.median(tops))
    bottoms = figures(measure.bottom, rounds)
    values = [top - bottom if measure.is_difference else top / bottom for top, bottom in zip(tops, bottoms, strict=True)]
    return Result(measure, values, statistics.median(tops), statistics.median(bottoms))


def figures(name: str, rounds: dict[str, list[Figures]]) -> list[float]:
    side, _, figure = name.partition(".")
    return [played[figure] for played in rounds[side]]
