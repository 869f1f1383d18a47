"""A process of our own that is asked for one round at a time, and computes nothing in between.

The asked side's whole program is `answer(rounds)`: lines of JSON in, lines of JSON out.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

Round = Callable[[float], dict[str, float]]  # of so many seconds, gives its figures


class Worker:
    """The asking side, a context. `module` is run as a program with the corpus's file as its argument."""

    def __init__(self, module: str, corpus_file: Path) -> None:
        self.command = [sys.executable, "-m", module, str(corpus_file)]

    def __enter__(self) -> "Worker":
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.about: dict[str, Any] = self.reply()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        self.process.communicate()

    def ask(self, name: str, seconds: float) -> dict[str, float]:
        assert self.process.stdin
        print(json.dumps({"round": name, "seconds": seconds}), file=self.process.stdin, flush=True)
        return self.reply()

    def reply(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.command[1:3])} ended; what it said stands above")
        return json.loads(line)


def answer(rounds: dict[str, Round], **about: object) -> None:
    """Says that it is ready, and something about itself, then plays each round it is asked for."""
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(rounds[asked["round"]](asked["seconds"])), flush=True)
