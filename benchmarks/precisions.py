"""bfloat16 (what "auto" is here), int8 and int8-fast over HTTP in one run, each beside float32's vectors.

`python -m benchmarks.precisions` prints speed and fidelity.

Ten nearest kept, as in recall.py: every ninth sentence is a query. nDCG@10 takes float32's ten nearest as what is relevant, the
first the most. The rank correlation is Spearman's, of all documents' scores for a query. No sentence of the corpus calibrates: the
built-in texts are this project's own.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks import corpus, load
from benchmarks.machine import machine, place, programs, versions
from benchmarks.program import FLOAT32_ROW, GATEWAY, Program
from benchmarks.recall import NEAREST, Rows, kept, nearest, scores, vectors
from benchmarks.replies import unit
from benchmarks.rounds import add_options, now, played
from benchmarks.rounds import kept as keep
from benchmarks.server import Server
from benchmarks.sides import CLIENTS, INPUTS
from benchmarks.table import aligned

PRECISIONS = ("auto", "int8", "int8-fast")
BARS = {"int8": (1.35, 0.96), "int8-fast": (1.6, 0.93)}
RANKED = 100  # queries whose whole ranking is compared
COLUMNS = ("precision", "texts/s", "x auto", "spread", "nearest kept", "mean cosine", "worst", "Spearman", "nDCG@10", "bars")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precisions", description=__doc__)
    add_options(parser)
    options = parser.parse_args()
    if not load.is_installed():
        print(load.HINT, file=sys.stderr)
        sys.exit(2)
    about: dict[str, Any] = {"at": now(), "machine": machine(), "versions": versions()}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        sentences = corpus.corpus()
        bodies = load.bodies_file(folder / "bulk.jsonl", sentences.requests)
        with Server(program("float32"), folder / "gateway") as server:
            expected = vectors(server, sentences, "float")
        servers = {name: stack.enter_context(Server(program(name), folder / "gateway")) for name in PRECISIONS}
        fidelity = {name: compared(vectors(server, sentences, "float"), expected) for name, server in servers.items()}

        def bulk(name: str) -> dict[str, float]:
            seen = load.load(servers[name], bodies, clients=CLIENTS, seconds=options.seconds)
            return {"texts_per_second": INPUTS * seen.requests_per_second}

        rounds = played(bulk, list(servers), options.rounds)
    print(f"\n{place(about)}\n{programs(about)}\n")
    speeds = {name: [each["texts_per_second"] for each in figures] for name, figures in rounds.items()}
    print(aligned([COLUMNS, *(row(name, speeds, fidelity[name]) for name in PRECISIONS)]))
    print(keep(f"{about['at']}-precisions", {**about, "fidelity": fidelity, "rounds": rounds}))


def program(precision: str) -> Program:
    return GATEWAY.configured(GATEWAY__MODELS=json.dumps([{**FLOAT32_ROW, "precision": precision}]))


def compared(rows: Rows, expected: Rows) -> dict[str, float]:
    """The fidelity of `rows` to `expected`, a row a sentence."""
    cosines = np.sum(unit(rows) * unit(expected), axis=1)
    exact, found = scores(expected), scores(rows)
    correlations = [spearmanr(exact[query], found[query]).statistic for query in range(RANKED)]
    return {
        "kept": kept(exact, found),
        "mean_cosine": float(cosines.mean()),
        "worst_cosine": float(cosines.min()),
        "spearman": float(np.mean(correlations)),
        "ndcg": ndcg(exact, found),
    }


def ndcg(exact: Rows, found: Rows) -> float:
    gains, discounts = np.zeros_like(exact), 1 / np.log2(np.arange(2, NEAREST + 2))
    np.put_along_axis(gains, nearest(exact, NEAREST), np.arange(NEAREST, 0, -1, dtype=exact.dtype)[None], axis=1)
    reached = (np.take_along_axis(gains, nearest(found, NEAREST), axis=1) * discounts).sum(axis=1)
    return float(reached.mean() / (np.arange(NEAREST, 0, -1) * discounts).sum())


def row(name: str, speeds: dict[str, list[float]], fidelity: dict[str, float]) -> tuple[str, ...]:
    ratios = [mine / auto for mine, auto in zip(speeds[name], speeds["auto"], strict=True)]  # within a round
    ratio = statistics.median(ratios)
    speed, least = BARS.get(name, (0, 0))
    is_met = ratio >= speed and fidelity["kept"] >= least
    bars = f"{'met' if is_met else 'missed'}: {speed}x, {least:.0%}" if name in BARS else ""
    return (
        name, f"{statistics.median(speeds[name]):.0f}", f"{ratio:.2f}", f"{min(ratios):.2f} .. {max(ratios):.2f}",
        f"{fidelity['kept']:.1%}", f"{fidelity['mean_cosine']:.5f}", f"{fidelity['worst_cosine']:.4f}",
        f"{fidelity['spearman']:.5f}", f"{fidelity['ndcg']:.4f}", bars,
    )  # fmt: skip


if __name__ == "__main__":
    main()
