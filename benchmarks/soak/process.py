"""Processes of the soak's own that are killed, frozen and started again under the same port."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

START_SECONDS, STOP_SECONDS = 120, 60


class Process:
    """Ready once `is_up` says so: a GET of `probe` that answers 200, or where there is none, at once."""

    def __init__(self, command: Sequence[str], *, folder: Path, environment: Mapping[str, str], probe: str | None = None) -> None:
        self.command = command
        self.folder = folder
        self.environment = {**os.environ, **environment}
        self.probe = probe
        self.log = folder / f"{Path(command[0]).name}-{id(self):x}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def wait_until_ready(self) -> None:
        """Raises RuntimeError where it does not become so."""
        deadline = time.monotonic() + START_SECONDS
        while not self.is_up():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command} did not become ready: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def is_up(self) -> bool:
        if self.probe is None:
            return True
        try:
            with urllib.request.urlopen(self.probe, timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def stop(self) -> int:
        """By SIGTERM. Returns the exit code; -9 where it had to be killed."""
        self.send(signal.SIGTERM)
        return self.waited()

    def kill(self) -> int:
        self.send(signal.SIGKILL)
        return self.waited()

    def waited(self) -> int:
        if self.process is None:
            return 0
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
