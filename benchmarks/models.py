"""Models at full size with random weights, beside `encode`: texts/s over HTTP in bulk, and memory, in bfloat16 and in float32.

One precision at a time is served beside `encode` in float32, in turns, so that a ratio is one of the same minutes. `encode` in
bfloat16 is shown too where the CPU has it, and is not judged.
"""

import argparse
import contextlib
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import load
from benchmarks.full_size import MODELS, FullSize, texts
from benchmarks.machine import has_native_bfloat16, machine, place, programs, versions
from benchmarks.program import GATEWAY, MODEL, Program
from benchmarks.rounds import add_options, kept, now, played
from benchmarks.server import Server
from benchmarks.worker import Worker

CLIENTS = 4
BARS = {"bfloat16": 2.0, "float32": 1.2}  # times `encode` in float32


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    add_options(parser)
    parser.add_argument("--only", choices=MODELS, help="one of them")
    parser.add_argument("--precision", choices=BARS, help="one of them")
    parser.add_argument("--folder", type=Path, help="where the models, and what was compiled of them, stay for the next run")
    options = parser.parse_args()
    if not load.is_installed():
        print(load.HINT, file=sys.stderr)
        sys.exit(2)
    about: dict[str, Any] = {
        "at": now(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "machine": machine(),
        "versions": versions(),
    }
    print(f"\n{place(about)}\n{programs(about)}\n")
    found = {}
    for model in MODELS.values():
        if options.only in {None, model.name}:
            with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
                found[model.name] = measured(model, (options.folder or Path(folder)) / model.name, options)
    print(kept(f"models-{about['at']}", {**about, "models": found}))


def measured(model: FullSize, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    whole = folder / "whole"
    source, requests = whole if whole.is_dir() else model.make(folder), texts(model.inputs)
    bodies = load.bodies_file(folder / "bodies", requests)
    found = {}
    for precision, bar in BARS.items():
        if options.precision not in {None, precision} or (precision == "bfloat16" and not has_native_bfloat16()):
            continue
        program = GATEWAY.configured(GATEWAY__MODELS=json.dumps([row(source, precision)]))
        with Server(program, folder / precision) as compiling:
            compiled = {"compile_seconds": compiling.start_seconds}
        dtypes = dict.fromkeys(("float32", precision))
        asked = {dtype: encode_file(folder / f"encode-{dtype}.json", source, dtype, requests) for dtype in dtypes}
        figures = beside(program, folder / precision, bodies, asked, inputs=model.inputs, options=options)
        found[precision] = figures | compiled | {"artifact_mb": size_mb(folder / precision / "data" / "models")}
        for line in lines(model.name, precision, found[precision], bar):
            print(line, flush=True)
    return found


def beside(
    program: Program, folder: Path, bodies: Path, asked: dict[str, Path], *, inputs: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Rounds of the gateway and of an `encode` for each of `asked`, by dtype."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(program, folder))
        memory = {"start": resident(server.process.pid)}
        workers = {f"encode {dtype}": stack.enter_context(Worker("benchmarks.encode", file)) for dtype, file in asked.items()}
        sides = {"http": lambda: http(server, bodies, inputs, options.seconds)}
        sides |= {name: (lambda worker=worker: worker.ask("bulk", options.seconds)) for name, worker in workers.items()}
        sides["http"]()  # the shapes of these texts are compiled
        rounds = played(lambda name: sides[name](), list(sides), options.rounds)
        memory["loaded"] = resident(server.process.pid)
        memory |= {name: resident(worker.process.pid) for name, worker in workers.items()}
        batch_sizes = {name: worker.about["batch_size"] for name, worker in workers.items()}
        return {"start_seconds": server.start_seconds, "memory": memory, "rounds": rounds, "batch_sizes": batch_sizes}


def lines(name: str, precision: str, found: dict[str, Any], bar: float) -> list[str]:
    speeds = {side: [each["texts_per_second"] for each in values] for side, values in found["rounds"].items()}
    ratios = [mine / theirs for mine, theirs in zip(speeds["http"], speeds["encode float32"], strict=True)]
    verdict = "met" if statistics.median(ratios) >= bar else "missed"
    told = [f"{name}, {precision}: {spread(ratios, '.2f')} x encode in float32, bar {bar:g}: {verdict}"]
    told += [f"  {side}: {spread(values, '.1f')} texts/s{batch_size(found, side)}" for side, values in speeds.items()]
    for when, memory in found["memory"].items():
        fields = ", ".join(f"{field} {value:.0f} MB" for field, value in memory.items())
        told.append(f"  memory, {when}: {fields}")
    compiled = f"compiled in {found['compile_seconds']:.0f} s to {found['artifact_mb']:.0f} MB"
    told.append(f"  {compiled}, then starts in {found['start_seconds']:.1f} s")
    return told


def batch_size(found: dict[str, Any], side: str) -> str:
    return f" at its best batch size, {found['batch_sizes'][side]}" if side in found["batch_sizes"] else ""


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} .. {max(values):{form}})"


def row(model: Path, precision: str) -> dict[str, Any]:
    return {"name": "model", "aliases": [MODEL], "source": str(model), "download": False, "precision": precision}


def encode_file(path: Path, model: Path, dtype: str, requests: list[list[str]]) -> Path:
    path.write_text(json.dumps({"model": str(model), "dtype": dtype, "requests": requests}))
    return path


def http(server: Server, bodies: Path, inputs: int, seconds: float) -> dict[str, float]:
    return {"texts_per_second": inputs * load.load(server, bodies, clients=CLIENTS, seconds=seconds).requests_per_second}


def resident(pid: int) -> dict[str, float]:
    """In megabytes: resident now, the same with each page divided by the processes and networks that map it, and at its peak."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    now_mb = {name: int(re.findall(rf"^{name}:\s+(\d+)", rollup, re.MULTILINE)[0]) / 1000 for name in ("Rss", "Pss")}
    peak = re.findall(r"^VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[0]
    return {**now_mb, "peak": int(peak) / 1000}


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
