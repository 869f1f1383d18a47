"""A temporary Redis or Valkey server, from the path, on a free port. Tests may kill, restart and halt it."""

import signal
import socket
import subprocess
import time
from pathlib import Path

from gateway.testing.programs import find_program, free_port

PROGRAMS = ("redis-server", "valkey-server")
HINT = "neither redis-server nor valkey-server is installed"
BOUND_SECONDS = 30


class RedisServer:
    def __init__(self, folder: Path, *options: str) -> None:
        self.program = find_program(*PROGRAMS, hint=HINT)
        self.folder, self.options = folder, options
        self.port = free_port()
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
        """Makes it hang: its port is open, but nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
