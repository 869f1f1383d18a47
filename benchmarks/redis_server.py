"""A Redis of our own: a free port, nothing kept on disk, on 127.0.0.1 alone."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.program import HOST

PROGRAMS = ("redis-server", "valkey-server")
MAX_START_SECONDS = 20


HINT = "redis-server was not found, so 'shared limits' is left out: apt-get install redis-server"


def program() -> str | None:
    return next((name for name in PROGRAMS if shutil.which(name)), None)


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Its URL. Only where there is a `program`."""
    with socket.create_server((HOST, 0)) as listening:
        port = int(listening.getsockname()[1])
    command = [str(program()), "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"redis://{HOST}:{port}/0"
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + MAX_START_SECONDS
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError("redis-server did not start") from None
            time.sleep(0.02)
        else:
            return
