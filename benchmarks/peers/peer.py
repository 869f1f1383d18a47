"""One of those that are measured beside each other: a server over HTTP, or a library in a process of its own."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from benchmarks.load import KEY
from benchmarks.peers.fixed_work import MAX_SECONDS, Done, TooSlow, done
from benchmarks.peers.workload import Workload
from benchmarks.program import Program
from benchmarks.replies import Vectors, embedded
from benchmarks.server import Server

CLIENTS, CROWD = 4, 32
WARM_UP_SHARE = 8  # of an amount of work
LIBRARY_SCRIPT = Path(__file__).with_name("in_process.py")

__all__ = ["KEY", "Peer", "PeerLibrary", "PeerServer"]


class Peer(Protocol):
    """A context: ready inside. `threads` says in words how many it computes with."""

    name: str
    threads: str
    start_seconds: float

    def __enter__(self) -> "Peer": ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def warm_up(self, workload: Workload) -> None: ...

    def vectors(self, workload: Workload, kind: str, count: int) -> Vectors: ...

    def bulk(self, workload: Workload, kind: str) -> Done: ...

    def crowd(self, workload: Workload) -> Done | None:
        """One text a request of 32 clients; None for what has no clients."""

    def alone(self, workload: Workload, kind: str) -> Done: ...

    def memory_mb(self) -> float: ...


class PeerServer:
    """Started twice: what the first start leaves behind, compiled or in the page cache, is there for the second, which is timed."""

    def __init__(self, name: str, program: Program, folder: Path, *, threads: str) -> None:
        self.name, self.threads = name, threads
        self.program, self.folder = program, folder
        self.start_seconds = 0.0

    def __enter__(self) -> "PeerServer":
        with Server(self.program, self.folder):
            pass
        self.server = Server(self.program, self.folder)
        self.server.__enter__()
        self.start_seconds = self.server.start_seconds
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.server.stop()

    @property
    def url(self) -> str:
        return f"{self.server.url}/v1/embeddings"

    def warm_up(self, workload: Workload) -> None:
        for kind in ("mixed", "chunks"):
            self.bulk(workload, kind, share=WARM_UP_SHARE)
        done(self.url, workload.single("mixed", 2 * CROWD), clients=CROWD)

    def vectors(self, workload: Workload, kind: str, count: int) -> Vectors:
        return embedded(self.server, workload.texts[kind][:count])

    def bulk(self, workload: Workload, kind: str, share: int = 1) -> Done:
        work = workload.bulk(kind)
        return done(self.url, type(work)(work.bodies, max(1, work.num_requests // share), work.num_texts), clients=CLIENTS)

    def crowd(self, workload: Workload) -> Done | None:
        return done(self.url, workload.single("mixed", workload.amounts["crowd"]), clients=CROWD)

    def alone(self, workload: Workload, kind: str) -> Done:
        return done(self.url, workload.single(kind, workload.amounts[f"alone {kind}"]), clients=1)

    def memory_mb(self) -> float:
        return memory_mb(self.server.process.pid)


class PeerLibrary:
    """`in_process.py` under the library's own Python, asked over its standard input."""

    def __init__(
        self, name: str, library: str, python: Path, *, model: Path, file: Path, threads: str, environment: Mapping[str, str]
    ) -> None:
        self.name, self.threads = name, threads
        self.command = [python, LIBRARY_SCRIPT, library, model, file]
        self.environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", **environment}
        self.log = file.with_name(f"{library}.log")
        self.start_seconds = 0.0

    def __enter__(self) -> "PeerLibrary":
        began = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment
            )
        self._reply()
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def warm_up(self, workload: Workload) -> None:
        self._ask("choose", "mixed", workload.amounts["mixed"] // WARM_UP_SHARE)
        self._ask("bulk", "chunks", workload.amounts["chunks"] // WARM_UP_SHARE)

    def vectors(self, workload: Workload, kind: str, count: int) -> Vectors:  # noqa: ARG002 - it has read the same texts
        return np.array(self._ask("vectors", kind, count)["rows"], dtype=np.float32)

    def bulk(self, workload: Workload, kind: str) -> Done:
        count = workload.amounts[kind]
        seconds = self._ask("bulk", kind, count)["seconds"]
        return Done(seconds, count / seconds, [])

    def crowd(self, workload: Workload) -> Done | None:  # noqa: ARG002
        return None

    def alone(self, workload: Workload, kind: str) -> Done:
        took = self._ask("alone", kind, workload.amounts[f"alone {kind}"])["took"]
        return Done(sum(took), len(took) / sum(took), took)

    def memory_mb(self) -> float:
        return memory_mb(self.process.pid)

    def _ask(self, what: str, kind: str, count: int) -> dict[str, Any]:
        if self.process.poll() is not None:
            raise RuntimeError(f"it ended: {self._last_word()}")
        assert self.process.stdin
        print(json.dumps({"do": what, "kind": kind, "count": count}), file=self.process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        """Raises RuntimeError if the process has ended. One that is too slow is ended, as it would go on."""
        assert self.process.stdout
        timer = Timer(MAX_SECONDS, self.process.kill)
        timer.start()
        try:
            for line in self.process.stdout:
                if line.startswith("{"):
                    return dict(json.loads(line))
        finally:
            is_late = timer.finished.is_set()
            timer.cancel()
        if is_late:
            raise TooSlow(f"no answer within {MAX_SECONDS:.0f} s")
        raise RuntimeError(f"it ended: {self._last_word()}")

    def _last_word(self) -> str:
        return (self.log.read_text().strip().splitlines() or ["and said nothing"])[-1]


def memory_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    status = Path(f"/proc/{pid}/status").read_text()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6
    return own + sum(memory_mb(int(child)) for child in children)
