"""Redis on two hosts: one that counts, and a replica that can take its place."""

import socket
from pathlib import Path

from benchmarks.chaos_network.host_process import HostProcess
from benchmarks.chaos_network.network import Host

PORT = 6379


class Redis(HostProcess):
    def __init__(self, host: Host, folder: Path, *, primary: Host | None = None) -> None:
        command = ["redis-server", "--port", str(PORT), "--bind", host.address, "--protected-mode", "no", "--save", ""]
        command += ["--dir", str(folder), "--dbfilename", f"{host.name}.rdb"]
        command += ["--replicaof", primary.address, str(PORT)] if primary is not None else []
        super().__init__(host, command, folder=folder)

    def is_up(self) -> bool:
        return "master" in self.ask("ROLE") or "connected" in self.ask("ROLE")

    def promote(self) -> None:
        self.ask("REPLICAOF", "NO", "ONE")

    def ask(self, *words: str) -> str:
        with self.host.entered():
            return asked(self.host.address, *words)


def asked(address: str, *words: str) -> str:
    """The reply as it stands in the protocol; empty where there is none."""
    try:
        with socket.create_connection((address, PORT), timeout=2) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            return connection.recv(4096).decode()
    except OSError:
        return ""
