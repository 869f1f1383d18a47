"""One soak: everything started, clients of every kind let loose, things broken, and at the end what was seen."""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks import corpus
from benchmarks.machine import machine, place, programs, versions
from benchmarks.program import MODEL
from benchmarks.rounds import RESULTS, kept, now
from benchmarks.soak import report
from benchmarks.soak.faults import Faults
from benchmarks.soak.form import Vectors
from benchmarks.soak.scene import FEW_A_MINUTE, REMOTE, Scene
from benchmarks.soak.traffic import Caller, Traffic
from benchmarks.soak.watch import Sample, sampled

NUM_TEXTS = 1536
NEW_KEY_SECONDS = 2  # until a running server knows the callers' keys
LAST_SECONDS = 15  # without faults, in which all must be well again


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (default 10)")
    parser.add_argument("--clients", type=int, default=24, help="requests under way at once (default 24)")
    parser.add_argument("--pause-seconds", type=float, default=5, help="between two faults (default 5)")
    parser.add_argument("--seed", type=int, default=1, help="of what is sent, and of what is broken when (default 1)")
    options = parser.parse_args()
    about = {"at": now(), "options": vars(options), "machine": machine(), "versions": versions()}
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        scene = Scene(Path(name))
        texts, truth = expected(Path(name))
        try:
            scene.start()
            soak = Soak(scene, texts, truth)
            asyncio.run(soak.run(options))
        finally:
            code = scene.stop()
        verdicts = soak.verdicts(code)
    traffic, samples, events = soak.traffic, soak.samples, [(at - soak.began, name) for at, name in soak.faults.events]
    print(f"{place(about)}\n{programs(about)}\n")
    print(report.lines(traffic.tally, samples, Counter(name for _, name in events), verdicts))
    print(kept(f"soak-{about['at']}", {**about, **report.as_json(traffic.tally, samples, events, verdicts)}))
    picture = RESULTS / f"soak-{about['at']}.png"
    print(report.picture(traffic.tally, samples, events, began=soak.began, caption=place(about), path=picture))
    sys.exit(0 if all(told.startswith("well") for told in verdicts.values()) else 1)


def expected(folder: Path) -> tuple[list[str], Vectors]:
    sentences = [text for request in corpus.corpus().requests for text in request][:NUM_TEXTS]
    (folder / "texts.json").write_text(json.dumps(sentences), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "benchmarks.soak.truth", folder / "texts.json", folder / "truth.npy"], check=True)
    return sentences, np.load(folder / "truth.npy")


class Soak:
    def __init__(self, scene: Scene, texts: list[str], truth: Vectors) -> None:
        self.scene = scene
        self.callers = [
            scene.new_caller("local", MODEL),
            scene.new_caller("remote", REMOTE),
            scene.new_caller("limited", MODEL, "--rpm", str(FEW_A_MINUTE)),
        ]
        self.faults = Faults(scene)
        self.traffic = Traffic(scene.url, self.callers, texts=texts, truth=truth, is_unavailable=self.faults.is_unavailable)
        self.samples: list[Sample] = []
        self.began = time.monotonic()

    async def run(self, options: argparse.Namespace) -> None:
        await asyncio.sleep(NEW_KEY_SECONDS)
        self.began = time.monotonic()
        ends = self.began + 60 * options.minutes
        watching = asyncio.create_task(self.watch())
        clients = asyncio.create_task(self.traffic.run(options.clients, options.seed))
        await self.faults.run(options.seed, options.pause_seconds, until=ends - LAST_SECONDS - 10)
        await asyncio.sleep(max(0.0, ends - time.monotonic()))
        self.traffic.is_over = True
        await clients
        watching.cancel()

    async def watch(self) -> None:
        while True:
            sample = sampled(self.scene.gateway.pid, time.monotonic() - self.began)
            self.samples += [sample] if sample else []
            await asyncio.sleep(1)

    def verdicts(self, code: int) -> dict[str, str]:
        """What must hold; each begins with "well" where it does."""
        num_bad = report.num_bad(self.traffic.tally)
        codes = self.faults.exit_codes + Counter([code])
        return {
            "wrong or missing answers": f"well: {num_bad}" if num_bad == 0 else f"BAD: {num_bad}",
            "found by the faults": "well: nothing" if not self.faults.complaints else f"BAD: {'; '.join(self.faults.complaints)}",
            "exit codes": f"{'well' if set(codes) == {0} else 'BAD'}: {dict(codes)}",
            **{f"usage of '{caller.name}'": self.usage_verdict(caller) for caller in self.callers},
        }

    def usage_verdict(self, caller: Caller) -> str:
        """A client that left may have been charged; nothing that was answered may be missing."""
        rows = self.scene.command("keys", "usage", caller.public_id, "--since", "2d")
        counted, seen = sum(row["tokens"] for row in rows), self.traffic.tally.num_tokens[caller.name]
        return f"{'well' if counted >= seen else 'BAD'}: {counted:,} tokens in the store, {seen:,} in replies"


if __name__ == "__main__":
    main()
