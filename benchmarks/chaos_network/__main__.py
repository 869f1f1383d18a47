"""Each fault for each pair, and the table. Exit code 1 where a promise was broken, 3 where CI could and has not."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from benchmarks.chaos_network import report
from benchmarks.chaos_network.case import STREAMS, Case, cases
from benchmarks.chaos_network.load import MIN_COSINE, Load
from benchmarks.chaos_network.namespace import removed_at_the_end
from benchmarks.chaos_network.row import Row
from benchmarks.chaos_network.scene import PORT, Scene
from benchmarks.chaos_network.support import missing
from benchmarks.chaos_network.trial import Trial
from benchmarks.chaos_network.watch import Prometheus
from benchmarks.machine import machine, place, programs, versions
from benchmarks.rounds import RESULTS, kept, now

NOT_HERE = 3
SHORT_SECONDS, SHORT_TELLING_SECONDS = 3.0, 7.5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos_network", description=__doc__)
    parser.add_argument("--seconds", type=float, default=12, help="how long each fault lasts (default 12)")
    parser.add_argument("--only", action="append", default=[], help="rows that hold these words, such as 'Redis' or 'half-open'")
    parser.add_argument("--short", action="store_true", help="the few rows that fit into two minutes")
    options = parser.parse_args()
    if (found := missing()) is not None:
        print(f"chaos-network is left out: {found.reason}")
        sys.exit(NOT_HERE if found.is_out_of_order and os.environ.get("CI") == "true" else 0)
    signal.signal(signal.SIGTERM, end)  # as Ctrl-C does: through every `finally`
    about = {"at": now(), "options": vars(options), "machine": machine(), "versions": versions()}
    rows, verdicts = tried(options)
    told = "\n".join(f"{name}: {verdict}" for name, verdict in verdicts.items())
    print(f"{place(about)}\n{programs(about)}\n\n{report.lines(rows)}\n\n{told}\n")
    name = f"chaos-network-{about['at']}"
    print(kept(name, {**about, "rows": report.as_json(rows), "verdicts": verdicts}))
    (RESULTS / f"{name}.md").write_text(f"{place(about)}\n\n{report.markdown(rows)}\n\n{told}\n", encoding="utf-8")
    is_well = not any(row.violations for row in rows) and all(verdict.startswith("well") for verdict in verdicts.values())
    sys.exit(0 if is_well else 1)


def tried(options: argparse.Namespace) -> tuple[list[Row], dict[str, str]]:
    """The rows, and what is said of all together."""
    folder = Path(tempfile.mkdtemp(prefix="chaosnet-"))
    folder.chmod(0o711)  # PostgreSQL's own user passes through it
    with removed_at_the_end(folder):
        scene = Scene(folder, has_spares=not options.short)
        scene.start()
        load = Load({stream: scene.url(stream.gateway) for stream in STREAMS}, scene.key)
        prometheus = Prometheus({name: (process.host.address, PORT) for name, process in scene.gateways.items()})
        load.start(scene.hosts["clients"])
        prometheus.start(scene.hosts["prometheus"])
        try:
            seen = list(
                rows(cases(scene, load, is_short=options.short), Trial(scene, load, prometheus, is_short=options.short), options)
            )
        finally:
            load.stop()
            prometheus.stop()
        return seen, verdicts_of(scene, load)


def verdicts_of(scene: Scene, load: Load) -> dict[str, str]:
    """Each begins with "well" where it holds."""
    codes = scene.stop()
    counted, least, most = scene.num_tokens_counted(), load.num_tokens, load.num_asked_tokens
    return {
        "exit codes": f"{'well' if set(codes.values()) == {0} else 'BAD'}: {codes}",
        "usage": f"{'well' if least <= counted <= most else 'BAD'}: {counted:,} tokens in the store, {least:,} in replies",
        "worst cosine": f"{'well' if load.worst_cosine >= MIN_COSINE else 'BAD'}: {load.worst_cosine:.6f}",
    }


def rows(tries: Iterable[Case], trial: Trial, options: argparse.Namespace) -> Iterator[Row]:
    for case in tries:
        name = f"{case.pair}: {case.fault.name}"
        if all(words in name for words in options.only):
            row = trial.run(case, fault_seconds(case, options))
            print(f"{time.strftime('%X')} {name}: {report.verdict(row)}", file=sys.stderr, flush=True)
            yield row


def fault_seconds(case: Case, options: argparse.Namespace) -> float:
    """Shorter in the short form, and no longer than what is looked for takes."""
    if not options.short:
        return float(options.seconds)
    return SHORT_SECONDS if case.telling is None and not case.is_client_side else SHORT_TELLING_SECONDS


def end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
