"""A temporary PostgreSQL server for tests: the installed programs, with its own folder, port and password."""

import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from gateway.testing.programs import NotInstalled, free_port

START_SECONDS = 60
INSTALLED = "/usr/lib/postgresql"  # Debian's folder for the programs that are not on the path
USER = "gateway"


def programs() -> Path | None:
    """The folder of initdb and postgres; None if there is none."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path(INSTALLED).glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


class Postgres:
    """A server. `start` starts it, also again after `kill`, on the same port with the same data."""

    def __init__(self, folder: Path) -> None:
        found = programs()
        if found is None:
            raise NotInstalled("PostgreSQL is not installed on this machine (Debian: apt-get install postgresql)")
        self.programs = found
        self.folder = folder
        self.port = free_port()
        self.password = secrets.token_hex(12)
        self.process: subprocess.Popen[bytes] | None = None
        self.numbers = itertools.count()
        others = [user.pw_uid for user in pwd.getpwall() if user.pw_name in {"postgres", "nobody"}]
        self.user = None if os.getuid() else others[-1]  # PostgreSQL refuses to run as root
        self.as_user = {"user": self.user, "group": self.user, "extra_groups": []} if self.user is not None else {}

    def make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        if self.user is not None:
            for path in (self.folder, secret):
                os.chown(path, self.user, self.user)
        command = ["initdb", "-D", self.folder / "data", "-U", USER, "-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8"]
        self.run(*command, "--locale=C", "--no-sync")

    def run(self, program: str, *arguments: str | Path) -> None:
        command = [self.programs / program, *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS, cwd="/", **self.as_user)

    def start(self) -> None:
        options = [f"-p{self.port}", "-h127.0.0.1", "-k", "", "-F"]  # no socket file, no fsync
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.folder / "data", *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **self.as_user,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Creates an empty database. Returns its URL, password included."""
        name = f"test_{next(self.numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def kill(self) -> None:
        """Stops at once, like a machine that loses power: without a clean shutdown. May be called twice."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(START_SECONDS)
            self.process = None

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Makes the server hang for the block: SIGSTOP to each of its processes, those of connections included."""
        assert self.process is not None
        others = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with psycopg.connect(self.url("postgres")) as connection:
            found = [self.process.pid, *(pid for (pid,) in connection.execute(others))]
        for pid in found:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in found:
                os.kill(pid, signal.SIGCONT)


def running() -> Iterator[Postgres]:
    """For fixtures: yields a server that runs until the end of the fixture."""
    with tempfile.TemporaryDirectory(prefix="gateway-postgres-") as folder:
        server = Postgres(Path(folder))
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.kill()
