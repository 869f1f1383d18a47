"""One text alone, beside what others need for it: `python -m benchmarks.alone`.

Texts are short, mixed or as long as retrieval's chunks, in random order, one after the other. The gateway is measured over HTTP in
each precision, and in float32 with one stream as well, with 1 client, with 32, and in bulk. Beside it, in turns: `encode`, OpenVINO
and ONNX Runtime bare, on all cores, and the rate of square matrix products.
"""

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks import corpus, load, queries
from benchmarks.corpus import Corpus, model_folder
from benchmarks.machine import has_native_bfloat16, machine, place, programs, versions
from benchmarks.measures import Bar
from benchmarks.program import FLOAT32, GATEWAY, Program
from benchmarks.rounds import add_options, kept, now, played
from benchmarks.server import Server
from benchmarks.sides import CLIENTS, CROWD, Figures, milliseconds
from benchmarks.table import aligned, targets, written
from benchmarks.worker import Worker

KINDS = ("short", "mixed", "chunks")
CHUNK_TOKENS = range(200, 251)
NUM_CHUNKS = 256
MFLOP_A_TOKEN = 21
SERVERS: dict[str, Program] = {
    "auto": GATEWAY,
    "float32": FLOAT32,
    "one_stream": FLOAT32.configured(GATEWAY__ENGINE__STREAMS="1"),
}
BARE = {"encode": "encode", "openvino": "openvino-auto", "openvino32": "openvino-float32", "onnx": "onnx"}


@dataclass(frozen=True)
class Row:
    """`top` is a figure, "side.name"; with `bottom` the value is their ratio, or their difference where it `is_difference`.

    `factor` is what the ratio is multiplied by.
    """

    what: str
    top: str
    bottom: str | None
    unit: str
    bar: Bar
    is_difference: bool = False
    factor: float = 1.0

    def value(self, medians: dict[str, Figures]) -> float | None:
        figures = [figure(name, medians) for name in (self.top, self.bottom) if name]
        if any(each is None for each in figures):
            return None
        top, *bottom = (each for each in figures if each is not None)
        if not bottom:
            return top * self.factor
        return top - bottom[0] if self.is_difference else self.factor * top / bottom[0]


ENCODE_BARS = {"short": 0.25, "mixed": 0.33, "chunks": 0.5}
NO_BAR = Bar("<=", 0, aim=0, is_judged=False, note="not judged")


def rows() -> Iterator[Row]:
    precision = "bfloat16" if has_native_bfloat16() else "float32"
    for kind, most in ENCODE_BARS.items():
        bar = Bar("<=", most, aim=most, is_judged=has_native_bfloat16())
        yield Row(f"{precision}, {kind}, alone: p50 / encode", f"auto_{kind}.p50_ms", f"encode_{kind}.p50_ms", "x", bar)
    rate = Bar(">=", 0.62, aim=0.72) if has_native_bfloat16() else Bar(">=", 0.75, aim=0.8)
    yield Row(f"{precision}, bulk: of the rate of matrix products", "auto_bulk.tokens_per_second", "gemm_auto.mflop", "%", rate,
              factor=MFLOP_A_TOKEN)  # fmt: skip
    yield Row(f"{precision}, bulk: of the bare engine", "auto_bulk.tokens_per_second", "engine_bulk.tokens_per_second", "%",
              Bar(">=", 0.98, aim=0.99))  # fmt: skip
    yield Row(f"{precision}, 32 clients: of bulk", "auto_crowd.tokens_per_second", "auto_bulk.tokens_per_second", "%",
              Bar(">=", 0.85, aim=0.9))  # fmt: skip
    for server, name in (("float32", "float32"), ("one_stream", "float32, one stream")):
        for kind in KINDS:
            top = f"{server}_{kind}"
            yield Row(f"{name}, {kind}, alone: p50 - ONNX Runtime's bare", f"{top}.p50_ms", f"onnx_{kind}.p50_ms", "ms",
                      Bar("<=", 1, aim=0.8), is_difference=True)  # fmt: skip
            yield Row(f"{name}, {kind}, alone: p99 / ONNX Runtime's bare", f"{top}.p99_ms", f"onnx_{kind}.p99_ms", "x",
                      Bar("<=", 1.1, aim=1))  # fmt: skip
        yield Row(f"{name}, bulk: of the rate of matrix products", f"{server}_bulk.tokens_per_second", "gemm_float32.mflop", "%",
                  Bar(">=", 0.75, aim=0.8), factor=MFLOP_A_TOKEN)  # fmt: skip
        yield Row(f"{name}, 32 clients: of bulk", f"{server}_crowd.tokens_per_second", f"{server}_bulk.tokens_per_second", "%",
                  Bar(">=", 0.85, aim=0.9))  # fmt: skip
        yield Row(f"{name}, resident memory after load", f"{server}_memory.resident_mb", None, "MB", Bar("<=", 330, aim=300))
    parts = ("one_stream_bulk.tokens_per_second", "float32_bulk.tokens_per_second")
    yield Row("float32, one stream: bulk / that of the default", *parts, "%", NO_BAR)
    for runtime in ("openvino32", "openvino"):
        for kind in KINDS:
            yield Row(f"bare, {kind}: {BARE[runtime]} / ONNX Runtime in float32", f"{runtime}_{kind}.p50_ms", f"onnx_{kind}.p50_ms",
                      "x", NO_BAR)  # fmt: skip


def texts_of(sentences: Corpus) -> dict[str, list[str]]:
    """By kind, each in an order that is random and the same at every run."""
    shuffled = random.Random(24)  # noqa: S311 - no secret
    mixed = list(chain.from_iterable(sentences.requests))
    shuffled.shuffle(mixed)
    texts = {"short": shuffled.sample(sentences.short, len(sentences.short)), "mixed": mixed, "chunks": chunks_of(mixed)}
    shuffled.shuffle(texts["chunks"])
    return texts


def chunks_of(texts: list[str]) -> list[str]:
    """Of sentences one after another, as many as fit."""
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    chunks, parts, tokens = list[str](), list[str](), 2
    for text in texts:
        added = len(tokenizer.encode(text, add_special_tokens=False).ids)
        if tokens + added >= CHUNK_TOKENS.stop:
            if tokens in CHUNK_TOKENS:
                chunks.append(" ".join(parts))
            parts, tokens = [], 2
        parts, tokens = [*parts, text], tokens + added
        if len(chunks) == NUM_CHUNKS:
            break
    return chunks


class Play:
    """Runs one side: "server_kind", "runtime_kind", "gemm_precision" or "engine_bulk"."""

    def __init__(
        self, sentences: Corpus, folder: Path, seconds: float, servers: dict[str, Server], workers: dict[str, Worker]
    ) -> None:
        self.sentences, self.seconds = sentences, seconds
        self.servers, self.workers = servers, workers
        self.bodies = {kind: load.bodies_file(folder / f"{kind}.jsonl", texts) for kind, texts in texts_of(sentences).items()}
        self.bodies["bulk"] = load.bodies_file(folder / "bulk.jsonl", sentences.requests)

    def names(self) -> list[str]:
        names = [f"{server}_{what}" for what in (*KINDS, "bulk", "crowd") for server in self.servers]
        about = self.workers["bare"].about
        names += [f"{runtime}_{kind}" for kind in KINDS for runtime in about["runtimes"]]
        products = [f"gemm_{precision}" for precision in about["gemm"]]
        return [*sorted(names, key=lambda name: name.rpartition("_")[2]), *products, "engine_bulk"]

    def run(self, name: str) -> Figures:
        side, _, what = name.rpartition("_")
        if side in self.servers:
            return self.served(self.servers[side], what)
        if side == "engine":
            texts = self.workers["engine"].ask("bulk", self.seconds)["texts_per_second"]
            return {"tokens_per_second": texts * self.sentences.mean_tokens}
        return self.workers["bare"].ask(name, self.seconds)

    def served(self, server: Server, what: str) -> Figures:
        if what in KINDS:
            return milliseconds(load.load(server, self.bodies[what], clients=1, seconds=self.seconds))
        clients, bodies = (CLIENTS, "bulk") if what == "bulk" else (CROWD, "short")
        seen = load.load(server, self.bodies[bodies], clients=clients, seconds=self.seconds)
        tokens = self.sentences.mean_tokens * corpus.INPUTS if what == "bulk" else self.sentences.mean_short_tokens
        return {"tokens_per_second": tokens * seen.requests_per_second, **milliseconds(seen)}


def figure(name: str, medians: dict[str, Figures]) -> float | None:
    side, _, which = name.partition(".")
    return medians.get(side, {}).get(which)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alone", description=__doc__)
    add_options(parser)
    parser.add_argument("--models", type=Path, help="a folder in which compiled models stay for the next run")
    options = parser.parse_args()
    if not load.is_installed():
        print(load.HINT, file=sys.stderr)
        sys.exit(2)
    about: dict[str, Any] = {
        "at": now(),
        "options": {**vars(options), "models": str(options.models)},
        "machine": machine(),
        "versions": versions(),
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        sentences = corpus.corpus()
        servers = dict(started(stack, folder, sentences, options.models or folder / "models"))
        file = corpus.written(sentences, folder / "auto" / "corpus.json")  # beside the models that its server compiled
        workers = {
            "bare": stack.enter_context(Worker("benchmarks.bare_runtimes", file)),
            "engine": stack.enter_context(Worker("benchmarks.bare_engine", file)),
        }
        play = Play(sentences, folder, options.seconds, servers, workers)
        rounds = played(play.run, play.names(), options.rounds)
        about["workers"] = {name: worker.about for name, worker in workers.items()}
        for name, server in servers.items():
            rounds[f"{name}_memory"] = [{"resident_mb": server.memory_bytes("VmRSS") / 1e6, "start_seconds": server.start_seconds}]
    medians = {name: median(figures) for name, figures in rounds.items()}
    print(f"\n{place(about)}\n{programs(about)}\n{about['workers']['bare']['note']}\n\n{seen(medians)}\n\n{judged(medians)}\n")
    print(kept(f"{about['at']}-alone", {**about, "rounds": rounds}))


def started(stack: contextlib.ExitStack, folder: Path, sentences: Corpus, models: Path) -> Iterator[tuple[str, Server]]:
    """Each ready and warm. They share compiled models."""
    models.mkdir(parents=True, exist_ok=True)
    for name, program in SERVERS.items():
        data = folder / name / "data"
        data.mkdir(parents=True)
        (data / "models").symlink_to(models.absolute())
        server = stack.enter_context(Server(program, folder / name))
        queries.embed_all(server, sentences.requests[-CLIENTS:], clients=CLIENTS)
        yield name, server


def median(figures: list[Figures]) -> Figures:
    return {name: statistics.median(each[name] for each in figures) for name in figures[0]}


def seen(medians: dict[str, Figures]) -> str:
    shown = [(name, ", ".join(f"{which} {value:,.4g}" for which, value in figures.items())) for name, figures in medians.items()]
    return aligned([("side", "medians"), *sorted(shown)])


def judged(medians: dict[str, Figures]) -> str:
    """The rows whose sides were there."""
    cells = [("what", "value", "bar", "verdict")]
    for row in rows():
        value = row.value(medians)
        if value is None:
            cells.append((row.what, "", "", "not measured"))
        else:
            bar = targets(row.bar, row.unit)[0] if row.bar.is_judged else ""
            cells.append((row.what, written(value, row.unit), bar, row.bar.verdict(value)))
    return aligned(cells)


if __name__ == "__main__":
    main()
