"""A real Ray cluster of several nodes on this machine, a gateway in front of it, and a load that checks every vector."""

import asyncio
import json
import os
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import numpy as np

from gateway.testing.programs import free_port

HOST = "127.0.0.2"  # a loopback address that Ray does not replace by the host's outer address
MODEL = "small"
MAX_WAIT_SECONDS = 60.0
WORDS = [(first, second) for first in ("red", "green", "blue", "short", "long", "a") for second in ("server", "model", "vector")]
TEXTS = [f"the {first} {second} is in the {second} text" for first, second in WORDS]
COMMON = {"node_ip_address": HOST, "object_store_memory": 100 << 20}


class RayTestCluster:
    """A head without CPUs, which the gateway joins, and nodes that tests add and kill."""

    def __init__(self, port: int | None = None) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, **({"gcs_server_port": port} if port else {})}
        self.cluster = Cluster(initialize_head=True, head_node_args={**head, **COMMON})
        self.address = self.cluster.address

    def add_node(self, num_cpus: float = 1):
        return self.cluster.add_node(num_cpus=num_cpus, **COMMON)

    def kill_node(self, node) -> None:
        """Removes a node as a power failure does: it drains nothing."""
        self.cluster.remove_node(node, allow_graceful=False)

    def stop(self) -> None:
        self.cluster.shutdown()


def written(path: Path, address: str, *, source: Path, data: Path, engine: str = "", **row) -> Path:
    """Writes the configuration of a gateway with one model on the cluster. The values of `row` are TOML. Returns the path."""
    settings = {"resources": "{ num_cpus = 1 }", "precision": '"float32"', "surge_percent": "0", "look_back_seconds": "2", **row}
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
    path.write_text(
        f"""auth = "none"
[server]
port = {free_port()}
[engine]
{engine}
[cache]
max_bytes = 0
[store]
data_dir = "{data}"
[files]
enabled = true
min_free_bytes = 0
[batches]
lease_seconds = 1
[[models]]
name = "{MODEL}"
backend = "ray"
source = "{source}"
download = false
runtime = "openvino"
address = "{address}"
node_data_dir = "{data}"
{lines}
"""
    )
    return path


async def ran(*arguments: str) -> str:
    """Runs a gateway command, asserts that it succeeds, and returns its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 110)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def until(condition, *, seconds: float = MAX_WAIT_SECONDS, what: str = ""):
    """Waits until a condition, which may be async, is true, for `seconds` at most. Returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, what or condition
        await asyncio.sleep(0.1)


@contextmanager
def gateway_process(config: Path, log: Path):
    """Runs `gateway serve` in a process of its own for the block, as an operator does."""
    import subprocess

    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--config", str(config)], stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Client:
    """A client of one gateway that compares every vector with the true one."""

    def __init__(self, app, truth: dict[str, np.ndarray]) -> None:
        self.app = app
        self.truth = truth
        self.statuses: dict[int, int] = {}
        self.num_wrong = 0

    async def asked(self, texts: list[str]) -> int:
        reply = await self.app.post("/v1/embeddings", json={"model": MODEL, "input": texts}, timeout=60)
        self.statuses[reply.status_code] = self.statuses.get(reply.status_code, 0) + 1
        if reply.status_code == 200:
            rows = np.array([each["embedding"] for each in reply.json()["data"]], dtype=np.float32)
            expected = np.stack([self.truth[text] for text in texts])
            self.num_wrong += not (rows.shape == expected.shape and np.abs(rows - expected).max() < 1e-4)
        return reply.status_code

    async def batched(self, texts: list[str]) -> bool:
        """Whether a batch of these texts, four a request, gives the true vectors."""
        parts = {f"id-{start}": texts[start : start + 4] for start in range(0, len(texts), 4)}
        bodies = {custom_id: {"model": MODEL, "input": part} for custom_id, part in parts.items()}
        lines = ({"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": body} for name, body in bodies.items())
        file = ("input.jsonl", "\n".join(map(json.dumps, lines)).encode())
        uploaded = (await self.app.post("/v1/files", files={"file": file}, data={"purpose": "batch"})).json()
        body = {"input_file_id": uploaded["id"], "endpoint": "/v1/embeddings", "completion_window": "24h"}
        batch = (await self.app.post("/v1/batches", json=body)).json()
        while batch["status"] in {"validating", "in_progress", "finalizing"}:
            await asyncio.sleep(0.05)
            batch = (await self.app.get(f"/v1/batches/{batch['id']}")).json()
        assert batch["status"] == "completed", batch
        replies = (await self.app.get(f"/v1/files/{batch['output_file_id']}/content")).text.splitlines()
        rows = [each["embedding"] for reply in replies for each in json.loads(reply)["response"]["body"]["data"]]
        assert [json.loads(reply)["custom_id"] for reply in replies] == list(parts)
        return bool(np.abs(np.array(rows, np.float32) - np.stack([self.truth[text] for text in texts])).max() < 1e-4)

    async def load(self, stop: asyncio.Event, *, clients: int, num_texts: int = 4) -> None:
        """A closed loop of `clients` at once, until `stop` is set."""

        async def one(number: int) -> None:
            while not stop.is_set():
                start = number % len(TEXTS)
                await self.asked((TEXTS + TEXTS)[start : start + num_texts])
                number += 5

        await asyncio.gather(*(one(number) for number in range(clients)))

    @property
    def num_asked(self) -> int:
        return sum(self.statuses.values())

    async def counted(self, metric: str) -> float:
        text = (await self.app.get("/metrics")).text
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(metric))

    async def is_alive(self) -> bool:
        try:
            return (await self.app.get("/livez")).status_code == 200
        except httpx2.TransportError:
            return False

    async def running(self) -> int:
        return int(await self.counted(f'gateway_cluster_replicas{{model="{MODEL}",state="RUNNING"}}'))

    async def is_ready(self) -> bool:
        return (await self.app.get("/readyz")).status_code == 200


def replica_processes() -> dict[int, tuple[int, float]]:
    """The process id of each replica of the tests' model -> (its parent, which is the Ray node's, and the CPU seconds it used)."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
            title = stat.with_name("cmdline").read_bytes()
        except OSError:  # the process has ended meanwhile
            continue
        if title.startswith(f"ray::ServeReplica:{MODEL}:".encode()):
            fields = text.rpartition(")")[2].split()
            found[int(stat.parent.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    return found


@asynccontextmanager
async def under_load(client: Client, *, clients: int, num_texts: int = 4):
    """Runs a load that begins before the block and ends after it."""
    stop = asyncio.Event()
    task = asyncio.create_task(client.load(stop, clients=clients, num_texts=num_texts))
    try:
        before = client.num_asked
        await until(lambda: task.done() or client.num_asked >= before + 10 * clients, what="requests are answered")
        yield
    finally:
        stop.set()
        await task


def client_of(url: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, trust_env=False)
