"""One run: warm up, play the sides of every ratio in turns, print the table, keep it as JSON and draw throughput and latency."""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import chart, corpus, load, queries, redis_server, rerank, road
from benchmarks.machine import cores, machine, place, programs, versions
from benchmarks.measures import GROUPS, MEASURES, ONCE, Result, chosen, result
from benchmarks.program import CACHED, FLOAT32, GATEWAY, LIMITED, OPEN, SHARED, STANDIN, before, crowded
from benchmarks.rounds import add_options, kept, now, played
from benchmarks.server import Server
from benchmarks.sides import CLIENTS, LEVELS, Figures, Sides
from benchmarks.table import table
from benchmarks.worker import Worker

WORKERS = {"encode": "benchmarks.reference", "engine": "benchmarks.bare_engine", "predict": "benchmarks.rerank"}
RERANKERS = {"rerank": "auto", "rerank32": "float32"}  # precisions
VARIANTS = {"float32": FLOAT32, "cached": CACHED, "open": OPEN, "limited": LIMITED, "shared": SHARED}
ON_ONE_CORE = {"cached", "open", "limited", "shared"}
ROAD = "road"
LEVEL_SIDES = [f"level:{clients}" for clients in LEVELS]


def main() -> None:
    options = parsed(sys.argv[1:])
    if not load.is_installed():
        print(load.HINT, file=sys.stderr)
        sys.exit(2)
    if ROAD in (options.only or ()):  # by itself: its gateways have a device that costs nothing
        print(road.run(num_rounds=options.rounds, seconds=options.seconds))
        options.only.remove(ROAD)
        if not options.only:
            return
    began = time.monotonic()
    measures = chosen(options.only, options.growth_minutes, options.past_tokens)
    if redis_server.program() is None:
        print(redis_server.HINT, file=sys.stderr)
        measures = [measure for measure in measures if "one_shared" not in measure.sides]
    names = list(dict.fromkeys(side for measure in measures for side in measure.sides))
    names += LEVEL_SIDES if not options.only or "levels" in options.only else []
    about: dict[str, Any] = {"at": now(), "options": vars(options), "machine": machine(), "versions": versions()}
    with contextlib.ExitStack() as stack:
        sides = started(stack, names, options)
        rounds = played(sides.run, [name for name in names if name not in ONCE], options.rounds)
        rounds |= played(sides.run, [name for name in names if name in ONCE], 1)
        about["corpus"] = sides.corpus.about
        about["workers"] = {name: worker.about for name, worker in sides.workers.items()}
    results = [result(measure, rounds) for measure in measures]
    about["seconds"] = round(time.monotonic() - began)
    print(report(about, results))
    for path in written(about, results, rounds):
        print(path)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add_options(parser)
    parser.add_argument(
        "--growth-minutes", type=float, default=2, help="how long the growth of memory is watched; its bar is one of 60 (default 2)"
    )
    parser.add_argument(
        "--past-tokens", type=int, default=300_000, help="of the key with a past; its bar is one of 10,000,000 (default 300,000)"
    )
    names = [measure.name for measure in MEASURES if measure.top]
    parser.add_argument(
        "--only",
        action="append",
        choices=[*dict.fromkeys([*names, *GROUPS]), "levels", ROAD],
        help="this measure, the chart's (levels), or what the road costs each process (road); repeatable",
    )
    return parser.parse_args(arguments)


def started(stack: contextlib.ExitStack, names: list[str], options: argparse.Namespace) -> Sides:
    """The gateways and the processes the sides need, warm."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
    sentences = corpus.corpus()
    server = stack.enter_context(Server(GATEWAY, folder / "gateway"))
    redis = stack.enter_context(redis_server.running(folder)) if "one_shared" in names else ""
    variants = {
        name: stack.enter_context(
            Server(program.with_redis(redis), folder / name, core=cores()[0] if name in ON_ONE_CORE else None)
        )
        for name, program in VARIANTS.items()
        if any(side.endswith(f"_{name}") for side in names)
    }
    if any(side.endswith(("_upstream", "_crowded")) for side in names):
        variants |= upstream(stack, folder)
    if any(side.endswith(("_predict", *(f"_{name}" for name in RERANKERS))) for side in names):
        reranker = rerank.saved(folder / "gateway" / rerank.NAME)
        variants |= {
            name: stack.enter_context(Server(rerank.program(reranker, precision), folder / name))
            for name, precision in RERANKERS.items()
            if any(side.endswith(f"_{name}") for side in names)
        }
    workers = {
        name: stack.enter_context(Worker(module, corpus.written(sentences, folder / "gateway" / "corpus.json")))
        for name, module in WORKERS.items()
        if any(side.endswith(f"_{name}") for side in names)
    }
    for warmed in (server, *(variant for name, variant in variants.items() if name not in RERANKERS)):
        queries.embed_all(warmed, sentences.requests[-CLIENTS:], clients=CLIENTS)
    return Sides(sentences, folder, options.seconds, server, workers, variants, options.growth_minutes, options.past_tokens)


def upstream(stack: contextlib.ExitStack, folder: Path) -> dict[str, Server]:
    """A gateway on one core, one with many models, and the server that their models are on, on another core."""
    gateway_core, *others = list[int | None](cores()) or [None]
    standin = stack.enter_context(Server(STANDIN, folder / "standin", core=others[-1] if others else gateway_core))
    return {
        "standin": standin,
        "upstream": stack.enter_context(Server(before(standin.url), folder / "upstream", core=gateway_core)),
        "crowded": stack.enter_context(Server(crowded(standin.url), folder / "crowded")),
    }


def report(about: dict[str, Any], results: list[Result]) -> str:
    texts = "sentences of {mean_tokens} tokens on average, short ones of {mean_short_tokens}".format(**about["corpus"])
    encode = about["workers"].get("encode")
    reference = f"; encode's best batch size: {encode['batch_size']}" if encode else ""
    return f"\n{place(about)}\n{programs(about)}\n{texts}{reference}; {about['seconds']} s in all\n\n{table(results)}\n"


def written(about: dict[str, Any], results: list[Result], rounds: dict[str, list[Figures]]) -> list[Path]:
    """The same as JSON, with the figures of every round; the chart, if its levels were run."""
    levels = [median_level(clients, rounds) for clients in LEVELS if f"level:{clients}" in rounds]
    measured = [{**asdict(row), "value": row.value, "verdict": row.verdict} for row in results]
    path = kept(about["at"], {**about, "results": measured, "levels": levels, "rounds": rounds})
    if not levels:
        return [path]
    caption = f"{place(about)}; {about['at']}\n{programs(about)}"
    return [path, chart.of_load(levels, "all-MiniLM-L6-v2 through the gateway", caption, path.with_suffix(".png"))]


def median_level(clients: int, rounds: dict[str, list[Figures]]) -> Figures:
    levels = rounds[f"level:{clients}"]
    return {"clients": clients, **{name: statistics.median(level[name] for level in levels) for name in levels[0]}}


if __name__ == "__main__":
    main()
