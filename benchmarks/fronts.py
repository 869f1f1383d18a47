"""The real model behind fronts, beside the engine without HTTP: `python -m benchmarks.fronts --workers 1 --workers 4 --workers 12`.

For machines with a GPU, whose engine is faster than one process can answer: how much of its speed is left over HTTP, by the number
of `server.workers`. On a CPU it needs `--clients 16 --bulk-clients 4`, as each client is answered twice at least.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

from benchmarks import corpus, load
from benchmarks.machine import machine
from benchmarks.program import GATEWAY
from benchmarks.rounds import add_options, kept, now, played
from benchmarks.server import Server
from benchmarks.sides import Figures
from benchmarks.table import aligned, short
from benchmarks.worker import Worker

WORKERS = (1, 4, 12)
CLIENTS, BULK_CLIENTS = 512, 32  # a GPU's batch has hundreds of texts
ENGINE = "engine"
COLUMNS = ("server.workers", "bulk texts/s", "of the engine", "single texts/s", "p50 ms", "alone p50 ms")


class FrontSides:
    """`run(name)` of the engine, or of a gateway by its number of workers."""

    def __init__(self, folder: Path, seconds: float, *, clients: int, bulk_clients: int) -> None:
        self.folder, self.seconds, self.clients, self.bulk_clients = folder, seconds, clients, bulk_clients
        self.sentences = corpus.corpus()
        texts = list(itertools.chain(*self.sentences.requests))
        self.bulk = load.bodies_file(folder / "bulk", self.sentences.requests)
        self.single = load.bodies_file(folder / "single", texts)

    def run(self, name: str) -> Figures:
        return self.engine() if name == ENGINE else self.gateway(int(name))

    def engine(self) -> Figures:
        file = corpus.written(self.sentences, self.folder / "corpus.json")
        with Worker("benchmarks.bare_engine", file) as worker:
            return worker.ask("bulk", self.seconds)

    def gateway(self, workers: int) -> Figures:
        with Server(GATEWAY.configured(GATEWAY__SERVER__WORKERS=str(workers)), self.folder) as server:
            load.load(server, self.bulk, clients=self.bulk_clients, seconds=self.seconds / 2)  # warm
            bulk = load.load(server, self.bulk, clients=self.bulk_clients, seconds=self.seconds)
            single = load.load(server, self.single, clients=self.clients, seconds=self.seconds)
            alone = load.load(server, self.single, clients=1, seconds=self.seconds / 2)
        return {
            "texts_per_second": corpus.INPUTS * bulk.requests_per_second,
            "single_per_second": single.requests_per_second,
            "p50_ms": 1e3 * single.p50,
            "alone_p50_ms": 1e3 * alone.p50,
        }


def table(rounds: dict[str, list[Figures]]) -> str:
    """The best round of each: a machine that is disturbed is slower, never faster."""
    engine = max(figures["texts_per_second"] for figures in rounds[ENGINE])
    rows = []
    for name, found in rounds.items():
        best = max(found, key=lambda figures: figures["texts_per_second"])
        share = f"{100 * best['texts_per_second'] / engine:.0f} %"
        rest = [f"{best[figure]:,.2f}" for figure in ("p50_ms", "alone_p50_ms")] if name != ENGINE else []
        single = [short(best["single_per_second"])] if name != ENGINE else []
        rows.append((name, short(best["texts_per_second"]), share, *single, *rest, *[""] * (3 - len(single) - len(rest))))
    return aligned([COLUMNS, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fronts", description=__doc__)
    add_options(parser)
    parser.add_argument("--workers", action="append", type=int, help="server.workers; repeatable (default 1, 4 and 12)")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"of single texts (default {CLIENTS})")
    parser.add_argument("--bulk-clients", type=int, default=BULK_CLIENTS, help=f"of 64 texts a request (default {BULK_CLIENTS})")
    options = parser.parse_args()
    about = {"at": now(), "machine": machine()}
    names = [*map(str, options.workers or WORKERS), ENGINE]  # the first gateway compiles the model
    with tempfile.TemporaryDirectory(prefix="gateway-fronts-") as folder:
        sides = FrontSides(Path(folder), options.seconds, clients=options.clients, bulk_clients=options.bulk_clients)
        rounds = played(sides.run, names, options.rounds)
    print(table(rounds))
    print(kept(f"{about['at']}-fronts", {**about, "rounds": rounds}), file=sys.stderr)


if __name__ == "__main__":
    main()
