"""A server process of our own: a free port, a folder to itself, no model hub, and on 127.0.0.1 alone."""

import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from benchmarks.corpus import model_folder
from benchmarks.machine import on_cores
from benchmarks.program import HOST, Program

MAX_START_SECONDS, MAX_STOP_SECONDS = 1900, 40  # the first start compiles
# A gateway that is ready compiles for single texts five seconds later, for seconds of one core.
LATER_SECONDS, IDLE_SECONDS, MAX_BUSY_SECONDS = 5.5, 0.3, 30
IDLE_SHARE = 0.1  # of a core


class Server:
    """A context: started and ready inside, ended by SIGTERM after. With a `core` it runs on that one alone.

    `start_seconds` is from exec to the first 200 of its ready path. If it does not start, the RuntimeError says what it said.
    """

    def __init__(self, program: Program, folder: Path, *, core: int | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.program, self.folder, self.core = program, folder, core
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.log = folder / f"{self.port}.log"
        self.start_seconds = 0.0

    def __enter__(self) -> "Server":
        program = self.program.filled(port=str(self.port), folder=str(self.folder), model=str(model_folder()))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY", "INFINITY"))}
        environment = {**inherited, "HF_HUB_OFFLINE": "1", **program.environment}
        began = time.monotonic()
        # Its folder has no gateway.toml, so the defaults are what is measured.
        with self.log.open("w") as log, on_cores(None if self.core is None else {self.core}):
            self.process = subprocess.Popen(program.command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - began
        self.wait_until_idle()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + MAX_START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.program.name} did not become ready:\n{self.log.read_text()}")
            time.sleep(0.02)

    def wait_until_idle(self) -> None:
        """Until it has done all that it does by itself after the start."""
        time.sleep(LATER_SECONDS)
        deadline, before = time.monotonic() + MAX_BUSY_SECONDS, self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(IDLE_SECONDS)
            now = self.cpu_seconds()
            if now - before < IDLE_SHARE * IDLE_SECONDS:
                return
            before = now

    def cpu_seconds(self) -> float:
        """What all its threads used so far; child processes are not in it."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{self.program.ready_path}", timeout=1) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(MAX_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def counted(self, metric: str) -> float:
        """A counter of /metrics, summed over its labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as reply:
            text = reply.read().decode()
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{re.escape(metric)}[ {{}},]", line))

    def memory_bytes(self, field: str) -> int:
        """VmRSS, resident now, or VmHWM, the most there ever was. Raises RuntimeError if the process has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.program.name} ended:\n{self.log.read_text()}")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.split(f"{field}:")[1].split()[0])


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listening:
        return int(listening.getsockname()[1])
