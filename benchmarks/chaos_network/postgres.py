"""PostgreSQL on two hosts: a primary, and a standby that streams from it and can take its place."""

import os
import pwd
import secrets
import shutil
from pathlib import Path

import psycopg

from benchmarks.chaos_network.host_process import HostProcess
from benchmarks.chaos_network.network import EVERYONE, Host
from gateway.testing.postgres import USER, programs

PORT = 5432


class Postgres(HostProcess):
    """Refuses to run as root, as PostgreSQL does: then it is another user's."""

    def __init__(self, host: Host, folder: Path, password: str) -> None:
        self.programs = programs() or Path()
        self.password = password
        self.data = folder / host.name
        others = [user.pw_uid for user in pwd.getpwall() if user.pw_name in {"postgres", "nobody"}]
        as_user = {} if os.getuid() else {"user": others[-1], "group": others[-1], "extra_groups": []}
        # Without a socket file, and without waiting for the disk.
        command = [str(self.programs / "postgres"), "-D", str(self.data), f"-p{PORT}", f"-h{host.address}", "-k", "", "-F"]
        super().__init__(host, command, folder=folder, environment={"PGPASSWORD": password}, as_user=as_user)

    def make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        self.own(secret)
        self.own(self.data)
        self.run(
            str(self.programs / "initdb"), "-D", str(self.data), "-U", USER, "-A", "scram-sha-256", "--pwfile", str(secret),
            "-E", "UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {EVERYONE} scram-sha-256\n")
            rules.write(f"host replication all {EVERYONE} scram-sha-256\n")

    def own(self, path: Path) -> None:
        if path == self.data:
            path.mkdir(mode=0o700)
        if self.as_user:
            shutil.chown(path, self.as_user["user"], self.as_user["group"])

    def follow(self, primary: "Postgres") -> None:
        """A copy of what it has, and from then on what it writes."""
        self.own(self.data)
        source = f"postgresql://{USER}:{self.password}@{primary.host.address}:{PORT}/postgres"
        self.run(
            str(self.programs / "pg_basebackup"), "-d", source, "-D", str(self.data), "-R", "-c", "fast", "--no-sync",
        )  # fmt: skip

    def promote(self) -> None:
        """Returns once it takes writes."""
        self.run(str(self.programs / "pg_ctl"), "promote", "-D", str(self.data), "-w")

    def is_up(self) -> bool:
        try:
            with self.host.entered():
                psycopg.connect(self.url(self.host.address), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, name: str) -> str:
        """By a name, or an address."""
        return f"postgresql://{USER}:{self.password}@{name}:{PORT}/postgres"


def new_password() -> str:
    return secrets.token_hex(12)
