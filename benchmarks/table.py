"""Results as people read them."""

from benchmarks.measures import Result

COLUMNS = ("measure", "what", "sides", "value", "spread", "bar", "verdict")


def table(results: list[Result]) -> str:
    rows = [COLUMNS, *(cells(result) for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def cells(result: Result) -> tuple[str, ...]:
    measure = result.measure
    low, high = min(result.values), max(result.values)
    note = f" ({measure.note})" if measure.note else ""
    return (
        measure.name,
        measure.what,
        "" if result.bottom is None else f"{short(result.top)} / {short(result.bottom)}",
        written(result.value, measure.unit),
        f"{written(low, measure.unit)} .. {written(high, measure.unit)}",
        f"{measure.bar.direction} {written(measure.bar.reach, measure.unit)}{note}",
        result.verdict,
    )


def written(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.0f} %"
    return f"{value:.2f}x" if unit == "x" else f"{short(value)} {unit}"


def short(number: float) -> str:
    """Three figures that count, or the whole number."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
