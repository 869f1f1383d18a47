"""Everything that runs: two gateways, PostgreSQL and Redis twice, the upstream twice, another upstream, clients, Prometheus."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos_network import redis
from benchmarks.chaos_network.fault import ROOT
from benchmarks.chaos_network.host_process import HostProcess
from benchmarks.chaos_network.hosts_file import DOMAIN, HostsFile
from benchmarks.chaos_network.network import Network
from benchmarks.chaos_network.postgres import Postgres, new_password
from benchmarks.chaos_network.redis import Redis
from benchmarks.program import BIN

PORT = 8080  # of gateways and upstreams, each on its host's own address
GATEWAYS = ("gateway1", "gateway2")
DEPENDENCIES = ("postgres1", "postgres2", "redis1", "redis2", "upstream1", "upstream2", "other")
HOSTS = (*GATEWAYS, *DEPENDENCIES, "clients", "prometheus")
REMOTE, OTHER = "remote", "other"  # models: the one whose network fails, and one whose does not
DEADLINE_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 5.0
SNAPSHOT_SECONDS = 900.0  # that keys known last go on working; the default's minute is shorter than some of these faults
PART_SECONDS = 4.0  # for the rest of a request of which a part has come
# What is not said is at its default: what an operator has who set nothing.
CONFIG = """
[server]
host = "{address}"
port = {port}
request_timeout_seconds = {deadline}
keep_alive_seconds = {keep_alive}
header_timeout_seconds = {part}
body_timeout_seconds = {part}

[limits]
redis_url = {{ env = "CHAOS_REDIS_URL" }}
requests_per_minute = 1000000
tokens_per_minute = 100000000

[usage]
flush_seconds = 1

[auth]
max_snapshot_age_seconds = {snapshot}

[store]
database_url = {{ env = "CHAOS_DATABASE_URL" }}

[[models]]
name = "remote"
backend = "openai"
url = "http://upstream.{domain}:{port}"

[[models]]
name = "other"
backend = "openai"
url = "http://{other}:{port}"
"""


class Scene:
    """`start` makes and starts it all; the end of the namespaces is the end of it. Without spares nothing can fail over."""

    def __init__(self, folder: Path, *, has_spares: bool = True) -> None:
        self.folder = folder
        self.has_spares = has_spares
        self.network = Network(*HOSTS)
        self.hosts = hosts = self.network.hosts
        self.names = HostsFile(folder / "hosts")
        password = new_password()
        self.postgres = [Postgres(hosts[name], folder, password) for name in ("postgres1", "postgres2")]
        self.redis = [Redis(hosts["redis1"], folder), Redis(hosts["redis2"], folder, primary=hosts["redis1"])]
        self.upstreams = [self.upstream_process(name) for name in ("upstream1", "other", "upstream2")]
        self.gateways = {name: self.gateway_process(name) for name in GATEWAYS}

    def upstream_process(self, name: str) -> HostProcess:
        address = self.hosts[name].address
        command = [sys.executable, "-m", "benchmarks.chaos_network.upstream", address, str(PORT)]
        environment = {"PYTHONPATH": str(ROOT)}
        return HostProcess(
            self.hosts[name], command, folder=self.folder, environment=environment, probe=f"http://{address}:{PORT}/"
        )

    def gateway_process(self, name: str) -> HostProcess:
        address, config = self.hosts[name].address, self.folder / f"{name}.toml"
        text = CONFIG.format(
            address=address, port=PORT, deadline=DEADLINE_SECONDS, keep_alive=KEEP_ALIVE_SECONDS, part=PART_SECONDS,
            snapshot=SNAPSHOT_SECONDS, domain=DOMAIN,
            other=self.hosts["other"].address,
        )  # fmt: skip
        config.write_text(text, encoding="utf-8")
        environment = {
            "GATEWAY_CONFIG": str(config),
            "GATEWAY_DATA_DIR": str(self.folder / f"{name}-data"),
            "CHAOS_DATABASE_URL": self.postgres[0].url(f"postgres.{DOMAIN}"),
            "CHAOS_REDIS_URL": f"redis://redis.{DOMAIN}:{redis.PORT}/0",
        }
        command = self.names.command(str(BIN / "gateway"), "serve")
        return HostProcess(self.hosts[name], command, folder=self.folder, environment=environment, probe=f"{self.url(name)}/readyz")

    def url(self, gateway: str) -> str:
        return f"http://{self.hosts[gateway].address}:{PORT}"

    def start(self) -> None:
        """Raises RuntimeError where something does not start."""
        self.network.make()
        for name, host in (("postgres", "postgres1"), ("redis", "redis1"), ("upstream", "upstream1")):
            self.names.point(name, self.hosts[host].address)
        first = [self.postgres[0], self.redis[0], *self.upstreams[:2]]
        self.postgres[0].make()
        begin(first)
        if self.has_spares:
            self.postgres[1].follow(self.postgres[0])
            begin([self.postgres[1], self.redis[1], self.upstreams[2]])
        self.key = self.new_key()
        begin(list(self.gateways.values()))

    def new_key(self) -> str:
        words = self.names.command(str(BIN / "gateway"), "keys", "create", "--name", "chaos", "--json")
        return str(json.loads(self.gateways[GATEWAYS[0]].run(*words))["key"])

    def num_tokens_counted(self) -> int:
        """Of all keys, as the store has them."""
        words = self.names.command(str(BIN / "gateway"), "keys", "usage", "--since", "2d", "--json")
        return sum(int(row["tokens"]) for row in json.loads(self.gateways[GATEWAYS[0]].run(*words)))

    def promote_postgres(self) -> None:
        self.postgres[1].promote()
        self.names.point("postgres", self.hosts["postgres2"].address)

    def promote_redis(self) -> None:
        self.redis[1].promote()
        self.names.point("redis", self.hosts["redis2"].address)

    def promote_upstream(self) -> None:
        self.names.point("upstream", self.hosts["upstream2"].address)

    def stop(self) -> dict[str, int]:
        """The gateways' exit codes; what else runs ends with its namespace."""
        return {name: gateway.stop() for name, gateway in self.gateways.items()}


def begin(processes: Sequence[HostProcess]) -> None:
    """Returns once all are ready."""
    for process in processes:
        process.start()
    for process in processes:
        process.wait_until_ready()
