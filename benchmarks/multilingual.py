"""The multilingual model at full size, with random weights: 12 layers, 384 wide, 250,037 words. HTTP against encode, and memory.

Speed and memory do not ask what the weights are. The real words would share more beginnings than the made-up ones, so the real
tokenizer takes less memory than this one.
"""

import argparse
import contextlib
import json
import random
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from benchmarks import load
from benchmarks.machine import machine, place, programs, versions
from benchmarks.program import GATEWAY, MODEL
from benchmarks.rounds import add_options, kept, now, played
from benchmarks.server import Server
from gateway.testing.multilingual import SENTENCES, made

NUM_WORDS = 250_002
NUM_REQUESTS, INPUTS, CLIENTS = 64, 64, 4
BATCH_SIZES = (8, 32, 64)
PRECISIONS = ("auto", "float32")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.multilingual", description=__doc__)
    add_options(parser)
    parser.add_argument("--model", type=Path, help="a folder made before, instead of making one")
    options = parser.parse_args()
    about: dict[str, Any] = {"at": now(), "machine": machine(), "versions": versions()}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        model = options.model or made(folder, width=384, layers=12, heads=12, num_tokens=NUM_WORDS)
        requests = texts()
        bodies = load.bodies_file(folder / "bodies", requests)
        servers, figures = {}, {}
        for precision in PRECISIONS:
            program = GATEWAY.configured(GATEWAY__MODELS=json.dumps([row(model, precision)]))
            with Server(program, folder / precision):
                pass  # which compiles it; what is timed from now on finds the compiled model
            servers[precision] = stack.enter_context(Server(program, folder / precision))
            figures[precision] = {
                "start_seconds": servers[precision].start_seconds,
                "artifact_mb": size_mb(folder / precision / "data" / "models"),
                **resident(servers[precision], "idle"),
            }
        reference = SentenceTransformer(str(model), device="cpu", local_files_only=True)
        speed = {
            f"http {precision}": (lambda server=server: http(server, bodies, options.seconds))
            for precision, server in servers.items()
        }
        speed |= {f"encode {size}": (lambda size=size: encode(reference, requests, size, options.seconds)) for size in BATCH_SIZES}
        rounds = played(lambda name: speed[name](), list(speed), options.rounds)
        for precision, server in servers.items():
            figures[precision] |= resident(server, "loaded")
    print(f"\n{place(about)}\n{programs(about)}\n")
    speeds = {name: [each["texts_per_second"] for each in values] for name, values in rounds.items()}
    best = [max(speeds[f"encode {size}"][number] for size in BATCH_SIZES) for number in range(options.rounds)]
    for name, values in speeds.items():
        ratios = [value / most for value, most in zip(values, best, strict=True)]  # within a round: the machine has its moods
        print(f"{name:14} {spread(values, '.0f')} texts/s, {spread(ratios, '.2f')} of encode at its best")
    for precision, values in figures.items():
        print(f"{precision:14} " + ", ".join(f"{name} {value:.1f}" for name, value in values.items()))
    print(kept(f"multilingual-{about['at']}", {**about, "figures": figures, "rounds": rounds}))


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} .. {max(values):{form}})"


def row(model: Path, precision: str) -> dict[str, Any]:
    return {"name": "multilingual", "aliases": [MODEL], "source": str(model), "download": False, "precision": precision}


def texts() -> list[list[str]]:
    """One to three sentences of one language each, languages mixed in every request."""
    chance = random.Random(17)  # noqa: S311 - texts, no secrets
    languages = list(SENTENCES.values())

    def text() -> str:
        return " ".join(chance.choices(chance.choice(languages), k=chance.randint(1, 3))) + f" {chance.randint(1, 10**6)}"

    return [[text() for _ in range(INPUTS)] for _ in range(NUM_REQUESTS)]


def http(server: Server, bodies: Path, seconds: float) -> dict[str, float]:
    return {"texts_per_second": INPUTS * load.load(server, bodies, clients=CLIENTS, seconds=seconds).requests_per_second}


def encode(model: SentenceTransformer, requests: list[list[str]], batch_size: int, seconds: float) -> dict[str, float]:
    began, num_texts = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        call = [text for number in range(CLIENTS) for text in requests[(num_texts // INPUTS + number) % NUM_REQUESTS]]
        model.encode(call, batch_size=batch_size, show_progress_bar=False)
        num_texts += len(call)
    return {"texts_per_second": num_texts / (time.perf_counter() - began)}


def resident(server: Server, when: str) -> dict[str, float]:
    """RSS counts a page of the compiled model once for each network that maps it, PSS once."""
    rollup = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    return {
        f"{when}_{name.lower()}_mb": int(re.findall(rf"^{name}:\s+(\d+)", rollup, re.MULTILINE)[0]) / 1000
        for name in ("Rss", "Pss")
    }


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
