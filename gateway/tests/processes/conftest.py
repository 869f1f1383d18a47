"""Gateway processes that share a database."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

START_SECONDS = 60
STOP_SECONDS = 60
MODELS = '[{"name": "m", "backend": "fake"}]'


class Process:
    """A gateway of its own, on a free port that its log tells. `url` is the shared database's."""

    program = ("-m", "gateway.testing.program")

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        folder.mkdir()
        self.log_file = folder / "log"
        bare = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
        self.environment = {
            **bare,
            "GATEWAY_DATA_DIR": str(folder),
            "GATEWAY__SERVER__PORT": "0",
            "GATEWAY__MODELS": MODELS,
            "GATEWAY__ADMIN__ENABLED": "true",
            **settings,
        }
        self.origin = ""

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.program], env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )
        until(lambda: "ready" in self.events() or self.process.poll() is not None, START_SECONDS)
        assert self.process.poll() is None, self.log
        self.origin = re.findall(r'"url":"(http://[^"]+)/v1"', self.log)[-1]

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.splitlines() if line.startswith("{")]

    def run(self, *arguments: str) -> str:
        """What `gateway …` prints beside it."""
        command = [sys.executable, "-m", "gateway", *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def made_key(self, *options: str) -> dict:
        return json.loads(self.run("keys", "create", "--json", *options))

    def client(self, key: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.origin, headers={"authorization": f"Bearer {key}"}, timeout=30)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_SECONDS) == 0, self.log

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def two_gateways(request, tmp_path_factory):
    settings = {}
    if request.param == "postgres":
        settings["GATEWAY__STORE__DATABASE_URL"] = request.getfixturevalue("postgres").new_database()
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as started:
        yield [started.enter_context(running(folder, number, **settings)) for number in range(2)]


@pytest.fixture
def pair(two_gateways):
    """Two gateways on one database: a PostgreSQL server's, or a SQLite file. One that a test has ended is started again."""
    for process in two_gateways:
        if process.process.poll() is not None:
            process.log_file.write_text("")
            process.start()
    return two_gateways


@contextmanager
def running(folder, number, kind=Process, **settings):
    process = kind(folder / f"gateway-{number}", **{"GATEWAY__USAGE__FLUSH_SECONDS": "0.5", **settings})
    if "GATEWAY__STORE__DATABASE_URL" not in settings:
        process.environment["GATEWAY_DATA_DIR"] = str(folder / "shared")
    process.start()
    try:
        yield process
    finally:
        process.kill()


def until(is_true, seconds):
    """Raises TimeoutError when it has not become true in time."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)
