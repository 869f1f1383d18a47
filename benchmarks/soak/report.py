"""What the soak saw, as a table and as a picture."""

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.chart import COLOURS, GRID, INK, plain, saved
from benchmarks.soak.traffic import Tally
from benchmarks.soak.watch import Sample, slope_mb_an_hour
from benchmarks.table import aligned

BUCKET_SECONDS = 5


def lines(tally: Tally, samples: Sequence[Sample], faults: Counter[str], verdicts: dict[str, str]) -> str:
    callers = sorted({caller for caller, _ in tally.outcomes})
    kinds = sorted({kind for _, kind in tally.outcomes}, key=lambda kind: (kind.startswith("BAD"), kind != "200", kind))
    outcomes = [("outcome", *callers, "all")]
    outcomes += [
        (kind, *(f"{tally.outcomes[caller, kind]:,}" for caller in callers), f"{of_kind(tally, kind):,}") for kind in kinds
    ]
    seen = [("seen", "value")]
    seen += [("requests", f"{sum(tally.outcomes.values()):,}"), ("worst cosine of a reply", f"{tally.worst_cosine:.6f}")]
    seen += [(f"fault: {name}", f"{count} times") for name, count in faults.items()]
    seen += [*process_rows(list(samples)), *verdicts.items()]
    return "\n\n".join([aligned(outcomes), aligned(seen), *tally.wrong])


def of_kind(tally: Tally, kind: str) -> int:
    return sum(count for (_, each), count in tally.outcomes.items() if each == kind)


def num_bad(tally: Tally) -> int:
    return sum(count for (_, kind), count in tally.outcomes.items() if kind.startswith("BAD"))


def process_rows(samples: list[Sample]) -> list[tuple[str, str]]:
    if not samples:
        return []
    return [
        ("resident memory", f"{samples[-1].resident_mb:.0f} MB at the end, {max(s.resident_mb for s in samples):.0f} at most"),
        ("its slope, second half", f"{slope_mb_an_hour(samples):+.0f} MB an hour"),
        ("file descriptors", f"{samples[-1].num_files} at the end, {max(s.num_files for s in samples)} at most"),
        ("threads", f"{samples[-1].num_threads} at the end, {max(s.num_threads for s in samples)} at most"),
    ]


def picture(
    tally: Tally, samples: Sequence[Sample], events: Sequence[tuple[float, str]], *, began: float, caption: str, path: Path
) -> Path:
    """Memory and latency over time, a line wherever something was broken."""
    figure = Figure(figsize=(11, 6.4))
    memory, latency = figure.subplots(2, 1, sharex=True)
    memory.plot([each.at for each in samples], [each.resident_mb for each in samples], color=COLOURS[0])
    memory.set(title="Resident memory", ylabel="MB", ylim=(0, None))
    for share, colour in zip((0.5, 0.99), COLOURS, strict=False):
        points = percentiles(tally.latencies, share, began)
        latency.plot([at for at, _ in points], [1000 * seconds for _, seconds in points], color=colour, label=f"p{100 * share:.0f}")
    latency.set(title="Latency of good replies, whatever their size", ylabel="ms", xlabel="seconds", yscale="log")
    latency.legend(frameon=False)
    for axes in (memory, latency):
        plain(axes)
        for at, _ in events:
            axes.axvline(at, color=GRID, linewidth=1, zorder=0)
    names = list(dict.fromkeys(name for _, name in events))
    for at, name in events:
        memory.text(at, memory.get_ylim()[1], str(names.index(name) + 1), fontsize=7, color=INK, ha="center", va="bottom")
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(names, start=1))
    return saved(figure, "A soak of the gateway", f"{caption}\n{numbered}", path)


def percentiles(latencies: Sequence[tuple[float, float]], share: float, began: float) -> list[tuple[float, float]]:
    buckets: dict[int, list[float]] = {}
    for at, seconds in latencies:
        buckets.setdefault(int((at - began) // BUCKET_SECONDS), []).append(seconds)
    return [(BUCKET_SECONDS * number, quantile(values, share)) for number, values in sorted(buckets.items())]


def quantile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100)[round(100 * share) - 1] if len(values) > 1 else values[0]


def as_json(
    tally: Tally, samples: Sequence[Sample], events: Sequence[tuple[float, str]], verdicts: dict[str, str]
) -> dict[str, Any]:
    return {
        "outcomes": {f"{caller}: {kind}": count for (caller, kind), count in tally.outcomes.items()},
        "wrong": tally.wrong,
        "worst_cosine": tally.worst_cosine,
        "samples": [sample.as_row() for sample in samples],
        "faults": events,
        "verdicts": verdicts,
    }
