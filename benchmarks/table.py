"""Results as people read them."""

from collections.abc import Sequence

from benchmarks.measures import Bar, Result

COLUMNS = ("measure", "what", "sides", "value", "spread", "bar", "aim", "verdict")


def table(results: list[Result]) -> str:
    return aligned([COLUMNS, *(cells(result) for result in results)])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns under their names, which are the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def cells(result: Result) -> tuple[str, ...]:
    measure = result.measure
    sides = "" if result.top is None or result.bottom is None else f"{short(result.top)} / {short(result.bottom)}"
    spread = " .. ".join(written(edge(result.values), measure.unit) for edge in (min, max) if result.values)
    value = "" if result.value is None else written(result.value, measure.unit)
    return (measure.name, measure.what, sides, value, spread, *targets(measure.bar, measure.unit), result.verdict)


def targets(bar: Bar, unit: str) -> tuple[str, str]:
    note = f" {bar.note}" if bar.note else ""
    return f"{bar.direction} {written(bar.reach, unit)}{note}", written(bar.aim, unit)


def written(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f} %" if abs(value) < 0.1 else f"{100 * value:.0f} %"
    return f"{value:.2f}x" if unit == "x" else f"{short(value)} {unit}"


def short(number: float) -> str:
    """Three figures that count, or the whole number."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
