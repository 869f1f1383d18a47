"""A process of one host: its sockets and its children's are in the host's namespace."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chaos_network.network import Host
from benchmarks.soak.process import Process


class HostProcess(Process):
    """`as_user` are subprocess' own arguments `user`, `group` and `extra_groups`."""

    def __init__(
        self,
        host: Host,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        probe: str | None = None,
        as_user: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(command, folder=folder, environment=environment or {}, probe=probe)
        self.host = host
        self.log = folder / f"{host.name}.log"
        self.as_user = as_user or {}

    def start(self) -> None:
        with self.host.entered(), self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                **self.as_user,
            )  # fmt: skip

    def is_up(self) -> bool:
        with self.host.entered():
            return super().is_up()

    def run(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        """What a command beside it prints. Raises CalledProcessError."""
        with self.host.entered():
            done = subprocess.run(
                words, cwd=self.folder, env={**self.environment, **(environment or {})}, capture_output=True, text=True,
                timeout=60, check=True, **self.as_user,
            )  # fmt: skip
        return str(done.stdout)
