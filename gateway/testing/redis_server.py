"""A real Redis, Debian's redis-server or any other in the path, on a free port: killed, started again and halted as tests like."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAMS = ("redis-server", "valkey-server")
BOUND_SECONDS = 30


def program() -> str:
    """Skips the test on a machine without it; where CI=true that is a failure."""
    found = next((name for name in PROGRAMS if shutil.which(name)), None)
    if found is None:
        message = "neither redis-server nor valkey-server is installed"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    return found


class RedisServer:
    def __init__(self, folder: Path, *options: str) -> None:
        self.program, self.folder, self.options = program(), folder, options
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [self.program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no", *self.options]
        self.process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + BOUND_SECONDS
        while not self.answers():
            assert self.process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def halt(self) -> None:
        """It hangs: its port is open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
