"""The sides in turns, round after round, and what is kept of them."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.sides import Figures

RESULTS = Path(__file__).with_name("results")


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is run; the median counts (default 3)")
    parser.add_argument("--seconds", type=float, default=6, help="how long a side runs in a round (default 6)")


def played(run: Callable[[str], Figures], names: Iterable[str], num_rounds: int) -> dict[str, list[Figures]]:
    """Every other round goes backwards, so that a machine that slows down favours no side."""
    rounds: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(num_rounds):
        for name in rounds if number % 2 == 0 else reversed(rounds):
            figures = run(name)
            rounds[name].append(figures)
            shown = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
            print(f"round {number + 1}: {name}: {shown}", file=sys.stderr, flush=True)
    return rounds


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")


def kept(name: str, content: dict[str, Any]) -> Path:
    """As JSON, in the folder of results."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return path
