"""`python -m benchmarks.peers`: everybody, column by column in turns, round after round, within a bounded time."""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks import corpus, figures_page, load
from benchmarks.machine import machine, place, programs, versions, versions_in
from benchmarks.peers.environments import ENVIRONMENTS
from benchmarks.peers.fixed_work import MAX_SECONDS, Done
from benchmarks.peers.lineup import ENCODE, TEI_NAME, Absent, default_precisions, lineup
from benchmarks.peers.peer import Peer
from benchmarks.peers.report import COLUMNS, Column, Row, recorded, table, verdicts
from benchmarks.peers.workload import JUDGED, Workload, workload
from benchmarks.program import PEERS_BIN
from benchmarks.replies import Vectors, unit
from benchmarks.rounds import kept, now

SETTLE_SECONDS = 0.3  # threads of the one before go on looking for work for a moment
RESERVE_SECONDS = 20.0  # to end everybody and to write
PEERS_PACKAGES = ("infinity-emb", "fastapi", "sentence-transformers", "torch")

Entered = list[tuple[Row, Peer]]
Figure = TypeVar("Figure")


@dataclass(frozen=True)
class Clock:
    """The time by which everything has ended, but for one amount of work that is under way."""

    deadline: float

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


def main() -> None:
    options = parsed(sys.argv[1:])
    if not load.is_installed():
        print(load.HINT, file=sys.stderr)
        sys.exit(2)
    began = time.monotonic()
    clock = Clock(began + 60 * options.minutes - RESERVE_SECONDS)
    about: dict[str, Any] = {"at": now(), "machine": machine(), "versions": versions(), "peers_versions": peers_versions()}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-peers-")))
        sentences = corpus.corpus()
        about["corpus"], work = sentences.about, workload(sentences, folder, options.scale)
        rows, present = entered(stack, work, options, clock)
        about["rounds"] = played(present, work, options.rounds, clock)
        for row, peer in present:
            row.memory_after_mb = measured(row, "memory", peer.memory_mb) or 0.0
    about["seconds"], about["load_after"] = round(time.monotonic() - began), round(os.getloadavg()[0], 2)
    text = report(about, rows, work)
    print(text)
    print(kept(f"{about['at']}-peers", {**about, "rows": [asdict(row) for row in rows]}))
    if options.into is not None:
        figures_page.put(options.into, "peers", text)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everybody is asked; the median counts (default 3)")
    parser.add_argument(
        "--minutes", type=float, default=12, help=f"all of it ends within them, and {MAX_SECONDS:.0f} s (default 12)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of the amounts of work (default 1)")
    parser.add_argument("--only", action="append", help="rows whose name begins so, beside encode; repeatable (default: all)")
    parser.add_argument("--precision", action="append", help="of the gateway; repeatable (default: the machine's own, and float32)")
    parser.add_argument("--tei", type=Path, default=found_tei(), help="text-embeddings-router; or TEI_BINARY, or on PATH")
    parser.add_argument("--into", type=Path, help="a page whose figures are replaced: docs/peers.md")
    return parser.parse_args(arguments)


def found_tei() -> Path | None:
    found = os.environ.get("TEI_BINARY") or shutil.which("text-embeddings-router")
    return Path(found) if found else None


def entered(stack: contextlib.ExitStack, work: Workload, options: argparse.Namespace, clock: Clock) -> tuple[list[Row], Entered]:
    """Starts and warms up everybody, one after another, and holds their vectors against encode's."""
    rows, present = [], []
    expected: dict[str, Vectors] = {}
    for name, peer in lineup(work, options.precision or default_precisions(), options.tei):
        if options.only and name != ENCODE and not name.startswith(tuple(options.only)):
            continue
        row = Row(name)
        rows.append(row)
        print(f"{name} …", file=sys.stderr, flush=True)
        if isinstance(peer, Absent):
            row.absence = str(peer)
        elif clock.seconds_left <= 0:
            row.absence = "not begun: time was up"
        else:
            row.absence = started(stack, row, peer, work, expected)
            present += [] if row.absence else [(row, peer)]
    return rows, present


def started(stack: contextlib.ExitStack, row: Row, peer: Peer, work: Workload, expected: dict[str, Vectors]) -> str:
    """Returns why it cannot be measured; "" if it can. The first one's vectors become those expected of the others."""
    try:
        stack.enter_context(peer)
        row.threads, row.start_seconds, row.memory_at_start_mb = peer.threads, peer.start_seconds, peer.memory_mb()
        peer.warm_up(work)
        found = {kind: peer.vectors(work, kind, count) for kind, count in JUDGED.items()}
    except (RuntimeError, OSError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()
        return " … ".join(dict.fromkeys((said[0], said[-1])))
    for kind, vectors in found.items():
        expected.setdefault(kind, vectors)
    row.worst_cosine = min(float(np.sum(unit(found[kind]) * unit(expected[kind]), axis=1).min()) for kind in JUDGED)
    return ""


def played(present: Entered, work: Workload, num_rounds: int, clock: Clock) -> int:
    """Returns the number of whole rounds. A round that would not end in time is not begun; every other one goes backwards."""
    longest = 0.0
    for number in range(num_rounds):
        if clock.seconds_left < longest:
            return number
        began = time.monotonic()
        order = present if number % 2 == 0 else present[::-1]
        for column in COLUMNS:
            for row, peer in order:
                play(row, peer, column, work, clock)
        print(f"round {number + 1}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        longest = max(longest, time.monotonic() - began)
    return num_rounds


def play(row: Row, peer: Peer, column: Column, work: Workload, clock: Clock) -> None:
    if column.name in row.failures:
        return
    if clock.seconds_left <= 0:
        if column.name not in row.rounds:
            row.failures[column.name] = "time was up"
        return
    time.sleep(SETTLE_SECONDS)
    done = measured(row, column.name, lambda: asked(peer, column.name, work))
    if done is not None:
        row.rounds.setdefault(column.name, []).append(done)


def asked(peer: Peer, what: str, work: Workload) -> Done | None:
    if what == "crowd":
        return peer.crowd(work)
    how, _, kind = what.partition(" ")
    return peer.bulk(work, kind) if how == "bulk" else peer.alone(work, kind)


def measured(row: Row, name: str, measure: Callable[[], Figure]) -> Figure | None:
    """A failure is told in its cell, and costs the others nothing."""
    try:
        return measure()
    except (RuntimeError, OSError) as error:
        row.failures[name] = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return None


def peers_versions() -> dict[str, str]:
    found = versions_in(PEERS_BIN / "python", PEERS_PACKAGES)
    for environment in ENVIRONMENTS:
        if environment.is_installed:
            found |= versions_in(environment.python, environment.packages)
    found.pop("python", None)
    return found


def report(about: dict[str, Any], rows: Sequence[Row], work: Workload) -> str:
    amounts = ", ".join(f"{name} {number}" for name, number in work.amounts.items())
    lines = [
        f"{about['at']}: {place(about)}, {about['load_after']} after; {about['rounds']} rounds in {about['seconds']} s",
        programs(about),
        f"peers: {', '.join(f'{name} {number}' for name, number in about['peers_versions'].items())}",
        f"texts a round: {amounts}", "", table(rows), "", *verdicts(rows),
    ]  # fmt: skip
    if any(row.name == TEI_NAME and row.absence for row in rows):
        lines += ["", recorded()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
