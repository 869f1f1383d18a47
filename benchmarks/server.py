"""A gateway process of our own, as an operator would start it: a free port, an empty data folder, one key, no model hub."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
KEY = "benchmark-key-of-24-characters-or-more"
MODEL = "all-MiniLM-L6-v2"
GATEWAY = Path(sys.executable).with_name("gateway")
MAX_START_SECONDS, MAX_STOP_SECONDS = 120, 40


class Server:
    """A context: started and ready inside, ended by SIGTERM after. `start_seconds` is from exec to the first 200 of /readyz."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "gateway.log"
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.start_seconds = 0.0

    def __enter__(self) -> "Server":
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
        environment = {
            **inherited,
            "HF_HUB_OFFLINE": "1",
            "GATEWAY_API_KEYS": KEY,
            "GATEWAY_DATA_DIR": str(self.folder / "data"),
            "GATEWAY__SERVER__HOST": HOST,
            "GATEWAY__SERVER__PORT": str(self.port),
        }
        began = time.monotonic()
        with self.log.open("w") as log:  # its folder has no gateway.toml, so the defaults are what is measured
            self.process = subprocess.Popen([GATEWAY, "serve"], cwd=self.folder, env=environment, stdout=log, stderr=log)
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + MAX_START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway did not become ready:\n{self.log.read_text()}")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=1) as reply:
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
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if re.match(rf"{metric}[ {{]", line))

    def memory_bytes(self, field: str) -> int:
        """VmRSS, resident now, or VmHWM, the most there ever was."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.split(f"{field}:")[1].split()[0])


def free_port() -> int:
    with socket.create_server((HOST, 0)) as listening:
        return int(listening.getsockname()[1])
