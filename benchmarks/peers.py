"""The gateway beside other servers of the same model, on the same cores in one run: `python -m benchmarks.peers`."""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import chart, corpus, load, replies
from benchmarks.contender import ENCODE, Contender, entered
from benchmarks.machine import machine, place, programs, versions, versions_in
from benchmarks.program import GATEWAY, PEERS, PEERS_BIN
from benchmarks.ranking import COLUMNS, LEGEND, Plays, medians, play_name, ranking, sorted_out
from benchmarks.rounds import add_options, kept, now, played
from benchmarks.server import Server
from benchmarks.sides import Figures, Sides
from benchmarks.worker import Worker

PACKAGES = ("infinity-emb", "fastapi", "uvicorn", "sentence-transformers", "transformers", "optimum", "torch", "numpy")


def main() -> None:
    options = parsed(sys.argv[1:])
    if not load.is_installed():
        print(load.HINT, file=sys.stderr)
        sys.exit(2)
    began = time.monotonic()
    about: dict[str, Any] = {"at": now(), "options": vars(options), "machine": machine(), "versions": versions()}
    about["peers_versions"] = versions_in(PEERS_BIN / "python", PACKAGES)
    with contextlib.ExitStack() as stack:
        contenders, about["corpus"], about["encode"] = started(stack, options.seconds)
        plays = sorted_out(contenders, run(contenders, options.rounds))
    about["seconds"] = round(time.monotonic() - began)
    print(report(about, contenders, plays))
    for path in written(about, contenders, plays):
        print(path)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    add_options(parser)
    return parser.parse_args(arguments)


def started(stack: contextlib.ExitStack, seconds: float) -> tuple[list[Contender], dict[str, Any], dict[str, Any]]:
    """All there are, and what is to be told of the texts and of encode. Raises RuntimeError if the gateway is not among them."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
    sentences = corpus.corpus()
    file = corpus.written(sentences, folder / "corpus.json")
    encode = stack.enter_context(Worker("benchmarks.reference", file))
    expected = replies.expected(file)
    contenders = []
    for number, program in enumerate((GATEWAY, *PEERS)):
        sides = Sides(sentences, folder, seconds, Server(program, folder / f"server-{number}"))
        contenders.append(entered(stack, sides, expected))
    gateway = contenders[0]
    if not gateway.sides:
        raise RuntimeError(gateway.absence)
    own = Sides(sentences, folder, seconds, gateway.sides.server, {"encode": encode})
    return [*contenders, Contender(ENCODE, own, 1.0)], sentences.about, encode.about


def run(contenders: Sequence[Contender], num_rounds: int) -> dict[str, list[Figures]]:
    """Column by column, so that those that are compared run one after another."""
    plays = {
        play_name(contender, column): (contender.sides, side)
        for column in COLUMNS
        for contender in contenders
        if contender.sides and (side := column.side_of(contender))
    }

    def play(name: str) -> Figures:
        sides, side = plays[name]
        return sides.run(side)

    return played(play, plays, num_rounds)


def report(about: dict[str, Any], contenders: Sequence[Contender], plays: Plays) -> str:
    texts = "sentences of {mean_tokens} tokens on average, short ones of {mean_short_tokens}".format(**about["corpus"])
    reference = f"encode's best batch size: {about['encode']['batch_size']}; {about['seconds']} s in all"
    return "\n".join(["", *places(about), f"{texts}; {reference}", "", ranking(contenders, plays), "", *LEGEND, ""])


def places(about: dict[str, Any]) -> list[str]:
    peers = ", ".join(f"{name} {number}" for name, number in about["peers_versions"].items())
    return [place(about), programs(about), f"peers: {peers}"]


def written(about: dict[str, Any], contenders: Sequence[Contender], plays: Plays) -> list[Path]:
    """The same as JSON, with the figures of every round, and as a chart."""
    servers = [
        {
            "name": contender.name,
            "absence": contender.absence,
            "worst_cosine": contender.worst_cosine,
            "rounds": {column.name: plays.get((contender.name, column.name), []) for column in COLUMNS},
        }
        for contender in contenders
    ]
    headings = {column.name: column.heading for column in COLUMNS}
    path = kept(f"{about['at']}-peers", {**about, "columns": headings, "servers": servers})
    panels = {column.heading: medians(column, contenders, plays) for column in COLUMNS}
    absences = [f"{contender.name}: {contender.absence}" for contender in contenders if contender.absence]
    caption = "\n".join([*places(about), *absences, about["at"]])
    return [path, chart.of_peers(panels, "all-MiniLM-L6-v2, one machine, one run", caption, path.with_suffix(".png"))]


if __name__ == "__main__":
    main()
