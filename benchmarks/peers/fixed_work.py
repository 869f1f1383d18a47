"""wrk with a fixed amount of work, timed to its end: a load that stops at a time does not count what is under way then."""

import json
import math
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from benchmarks.load import bodies_file
from benchmarks.program import KEY

SCRIPT = Path(__file__).with_suffix(".lua")
MAX_SECONDS = 60.0  # of one amount of work; who needs longer is told so in its cells


class TooSlow(RuntimeError):
    """The work was not done within the time."""


@dataclass(frozen=True)
class Work:
    """`num_requests` of the bodies in a file, `num_texts` in each."""

    bodies: Path
    num_requests: int
    num_texts: int


@dataclass(frozen=True)
class Done:
    """`seconds` are from the first request to the last reply. `took` are those of each request, of one client alone."""

    seconds: float
    texts_per_second: float
    took: list[float]


def work_of(path: Path, requests: Sequence[str | list[str]], num_requests: int) -> Work:
    """Work of as many requests; the same for whoever is measured."""
    num_texts = 1 if isinstance(requests[0], str) else len(requests[0])
    return Work(bodies_file(path, requests), num_requests, num_texts)


def percentile(took: Sequence[float], share: float) -> float:
    """The smallest of `took` that as large a share is not above (nearest rank)."""
    return sorted(took)[max(0, math.ceil(share * len(took)) - 1)]


def done(url: str, work: Work, *, clients: int, max_seconds: float = MAX_SECONDS) -> Done:
    """Raises TooSlow, or RuntimeError if a reply was not 200 or a connection broke: a figure of failures is none."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{math.ceil(max_seconds) + 60}s", f"--timeout={math.ceil(max_seconds)}s"]
    arguments = ["-s", str(SCRIPT), url, "--", str(work.bodies), KEY, str(work.num_requests)]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
    report = _report(process, max_seconds)
    if report["replies"] < work.num_requests and not report["not_ok"]:
        raise TooSlow(f"{report['replies']} of {work.num_requests} requests within {max_seconds:g} s")
    if report["not_ok"] or report["broken"]:
        raise RuntimeError(f"{report['not_ok']} replies were not 200 and {report['broken']} connections broke")
    return Done(report["seconds"], work.num_requests * work.num_texts / report["seconds"], report["took"] if clients == 1 else [])


def _report(process: "subprocess.Popen[str]", max_seconds: float) -> dict[str, Any]:
    """Ends wrk with the last reply, or when the time is up; it then says what it saw."""
    assert process.stdout
    timer = Timer(max_seconds, process.send_signal, [signal.SIGINT])
    timer.start()
    try:
        for line in process.stdout:
            if line == "enough\n":
                process.send_signal(signal.SIGINT)
            elif line.startswith('{"replies"'):
                return dict(json.loads(line))
        raise RuntimeError(f"wrk ended with {process.wait()} and without a report")
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
