"""Results as a picture: what comes out against what goes in."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

INK, GRID = "#1f2933", "#d9dee4"
COLOURS = ("#0b6e8f", "#e07a2f", "#7a5195", "#c9a227", "#8a9199")
CAPTION_CHARS_AN_INCH = 16


def of_load(levels: Sequence[Mapping[str, float]], title: str, caption: str, path: Path) -> Path:
    """`levels` have `clients`, `texts_per_second`, and `p50_ms`, `p95_ms`, `p99_ms`."""
    figure = Figure(figsize=(11, 4.8))
    throughput, latency = figure.subplots(1, 2)
    clients = [level["clients"] for level in levels]
    throughput.plot(clients, [level["texts_per_second"] for level in levels], "o-", color=COLOURS[0])
    throughput.set(title="Throughput", ylabel="texts/s", ylim=(0, None))
    for percentile, colour in zip((50, 95, 99), COLOURS, strict=False):
        values = [level[f"p{percentile}_ms"] for level in levels]
        latency.plot(clients, values, "o-", color=colour, label=f"p{percentile}")
    latency.set(title="Latency of a request", ylabel="ms", yscale="log")
    latency.yaxis.set_major_formatter(ScalarFormatter())
    latency.legend(frameon=False)
    for axes in (throughput, latency):
        axes.set_xscale("log", base=2)
        axes.set(
            xlabel="concurrent clients, one short text a request", xticks=clients, xticklabels=[f"{count:g}" for count in clients]
        )
        axes.xaxis.set_minor_formatter(NullFormatter())
        plain(axes)
    return saved(figure, title, caption, path)


def plain(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(color=GRID, labelcolor=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(GRID)


def saved(figure: Figure, title: str, caption: str, path: Path) -> Path:
    lines = [
        line for part in caption.splitlines() for line in textwrap.wrap(part, round(CAPTION_CHARS_AN_INCH * figure.get_figwidth()))
    ]
    below = 0.03 + 0.035 * len(lines)
    figure.suptitle(title, color=INK, fontweight="bold")
    figure.text(0.01, 0.02, "\n".join(lines), color=INK, fontsize=8, va="bottom")
    figure.tight_layout(rect=(0, below, 1, 1))
    figure.savefig(path, dpi=150)
    return path
