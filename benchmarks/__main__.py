"""One run: warm up, play the sides of every ratio in turns, print the table, keep it as JSON."""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import corpus, load, queries
from benchmarks.machine import machine, versions
from benchmarks.measures import MEASURES, Result, result
from benchmarks.server import Server
from benchmarks.sides import CLIENTS, Figures, Sides
from benchmarks.table import table
from benchmarks.worker import Worker

RESULTS = Path(__file__).with_name("results")
WORKERS = {"encode": "benchmarks.reference", "engine": "benchmarks.bare_engine"}


def main() -> None:
    options = parsed(sys.argv[1:])
    if not load.is_installed():
        print(load.HINT, file=sys.stderr)
        sys.exit(2)
    began = time.monotonic()
    measures = [measure for measure in MEASURES if not options.only or measure.name in options.only]
    names = list(dict.fromkeys(side for measure in measures for side in measure.sides))
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    about = {"at": at, "command": sys.argv, "machine": machine(), "versions": versions()}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        sentences = corpus.corpus()
        server = stack.enter_context(Server(folder))
        workers = {
            name: stack.enter_context(Worker(module, corpus.written(sentences, folder / "corpus.json")))
            for name, module in WORKERS.items()
            if any(side.endswith(f"_{name}") for side in names)
        }
        queries.embed_all(server, sentences.requests[-CLIENTS:], clients=CLIENTS)  # warm-up
        rounds = played(Sides(sentences, folder, options.seconds, server, workers), names, options.rounds)
        about["corpus"] = sentences.about
        about["workers"] = {name: worker.about for name, worker in workers.items()}
    results = [result(measure, rounds) for measure in measures]
    about["seconds"] = round(time.monotonic() - began)
    print(report(about, results))
    print(f"\n{kept(about, results, rounds)}")


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is run; the median counts (default 3)")
    parser.add_argument("--seconds", type=float, default=6, help="how long a side runs in a round (default 6)")
    parser.add_argument("--only", action="append", choices=[measure.name for measure in MEASURES], help="this measure; repeatable")
    return parser.parse_args(arguments)


def played(sides: Sides, names: list[str], num_rounds: int) -> dict[str, list[Figures]]:
    """Every other round goes backwards, so that a machine that slows down favours no side."""
    rounds: dict[str, list[Figures]] = {name: [] for name in names}
    for number in range(num_rounds):
        for name in names if number % 2 == 0 else reversed(names):
            figures = sides.run(name)
            rounds[name].append(figures)
            shown = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
            print(f"round {number + 1}: {name}: {shown}", file=sys.stderr, flush=True)
    return rounds


def report(about: dict, results: list[Result]) -> str:
    place = "{cpu}, {cores} cores, {memory_gb} GB, load {load_before} before".format(**about["machine"])
    programs = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    texts = "sentences of {mean_tokens} tokens on average, short ones of {mean_short_tokens}".format(**about["corpus"])
    encode = about["workers"].get("encode")
    reference = f"; encode's best batch size: {encode['batch_size']}" if encode else ""
    return f"\n{place}\n{programs}\n{texts}{reference}; {about['seconds']} s in all\n\n{table(results)}"


def kept(about: dict, results: list[Result], rounds: dict[str, list[Figures]]) -> Path:
    """The same as JSON, with the figures of every round."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{about['at']}.json"
    measured = [{**asdict(row), "value": row.value, "verdict": row.verdict} for row in results]
    path.write_text(json.dumps({**about, "results": measured, "rounds": rounds}, indent=2), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
