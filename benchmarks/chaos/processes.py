"""The gateway that is killed: its processes by the lines of its log."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx

START_SECONDS, STOP_SECONDS = 60, 60


class Processes:
    """A supervisor, fronts and an engine, started in a folder of their own. Its log is JSON lines."""

    def __init__(self, folder: Path, num_fronts: int) -> None:
        self.log_file = folder / "log"
        self.num_read = 0  # bytes of it
        self.seen: list[dict[str, object]] = []
        self.names = ["engine", *(f"front-{number}" for number in range(num_fronts))]
        bare = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
        self.environment = {
            **bare,
            "GATEWAY_DATA_DIR": str(folder),
            "GATEWAY__SERVER__PORT": "0",
            "GATEWAY__SERVER__WORKERS": str(num_fronts),
            "GATEWAY__AUTH__MODE": "none",
            "GATEWAY__LOG__FORMAT": "json",
        }

    def start(self) -> None:
        """Raises RuntimeError if it does not become ready."""
        with self.log_file.open("wb") as log:
            command = [sys.executable, "-m", "gateway.testing.process_program"]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not any(event["event"] == "ready" for event in self.events()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log_file.read_text(encoding="utf-8")[-3000:])
            time.sleep(0.05)
        self.origin = next(event["url"].removesuffix("/v1") for event in self.events() if event["event"] == "ready")

    def events(self) -> list[dict[str, object]]:
        """The lines of the log, those of requests aside. Each line is read once: there are a hundred thousand after a while."""
        with self.log_file.open("rb") as log:
            log.seek(self.num_read)
            whole, _, _ = log.read().rpartition(b"\n")
        self.num_read += len(whole) + bool(whole)
        lines = [line for line in whole.splitlines() if line.startswith(b"{") and b'"event":"request"' not in line]
        self.seen += [json.loads(line) for line in lines]
        return self.seen

    def pid(self, name: str, event: str = "process_started") -> int | None:
        """The process that has this name now; with "process_ready" the latest that became so."""
        found = [each["pid"] for each in self.events() if each["event"] == event and each["process"] == name]
        return int(str(found[-1])) if found else None

    def is_ready(self, name: str) -> bool:
        return self.pid(name) == self.pid(name, "process_ready")

    def kill(self, name: str) -> int:
        """Returns the process that was killed: the next one may have started before anybody looks again."""
        pid = self.pid(name)
        assert pid is not None
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return pid

    def is_serving(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.origin}/readyz", timeout=5).status_code == httpx.codes.OK
        return False

    def stop(self) -> int:
        """By SIGTERM. Returns the exit code; -9 where it had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def defects(self) -> list[str]:
        """What the log calls an error, the deaths themselves aside."""
        return [str(each["event"])[:200] for each in self.events() if each["level"] == "error" and each["event"] != "process_died"]

    def left_over(self) -> list[int]:
        """The processes that outlived the supervisor."""
        return [pid for event in self.events() if event["event"] == "process_started" and _runs(pid := int(str(event["pid"])))]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
