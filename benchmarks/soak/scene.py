"""Everything the soak runs: the gateway, another gateway as its upstream, and Redis where the machine has it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.program import BIN, HOST, MODEL
from benchmarks.server import free_port
from benchmarks.soak.process import Process
from benchmarks.soak.traffic import Caller

REMOTE = "remote"
UPSTREAM_KEY = "upstream-key-of-24-characters-or-more"
LOCAL_ROW = f"""
[[models]]
name = "{MODEL}"
source = "sentence-transformers/{MODEL}"
download = false
"""
CONFIG = """
[server]
host = "127.0.0.1"
port = {port}
drain_timeout_seconds = 20
max_body_bytes = {max_body_bytes}

[usage]
flush_seconds = 1

{limits}
{local}
[[models]]
name = "{remote}"
backend = "openai"
url = "http://127.0.0.1:{upstream_port}/v1"
model = "{model}"
key = {{ env = "SOAK_UPSTREAM_KEY" }}
long_input = "error"
"""
LIMITS = '[limits]\nredis_url = { env = "SOAK_REDIS_URL" }\n'
FEW_A_MINUTE = 600  # of the caller who is to meet its limit
MAX_BODY_BYTES = (16 << 20, 12 << 20)  # what reloads go back and forth between


class Scene:
    """A folder's worth of processes, each under a port it keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.upstream_port, self.redis_port = free_port(), free_port(), free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.config = folder / "gateway.toml"
        self.num_reloads = 0
        self.redis = self.redis_process() if shutil.which("redis-server") else None
        self.environment = {
            "HF_HUB_OFFLINE": "1",
            "GATEWAY_CONFIG": str(self.config),
            "GATEWAY_DATA_DIR": str(folder / "data"),
            "SOAK_UPSTREAM_KEY": UPSTREAM_KEY,
            "SOAK_REDIS_URL": f"redis://{HOST}:{self.redis_port}/0",
        }
        self.write_config()
        command = [sys.executable, "-m", "benchmarks.soak.target", "serve"]
        path = {"PYTHONPATH": str(Path(__file__).parents[2])}
        self.gateway = Process(command, folder=folder, environment={**self.environment, **path}, probe=f"{self.url}/readyz")
        self.upstream = self.upstream_process()

    def write_config(self) -> None:
        """Replaced as a whole: the gateway may be reading it."""
        text = CONFIG.format(
            port=self.port, upstream_port=self.upstream_port, model=MODEL, remote=REMOTE, local=LOCAL_ROW,
            limits=LIMITS if self.redis else "", max_body_bytes=MAX_BODY_BYTES[self.num_reloads % len(MAX_BODY_BYTES)],
        )  # fmt: skip
        self.num_reloads += 1
        new = self.config.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(self.config)

    def upstream_process(self) -> Process:
        environment = {
            "HF_HUB_OFFLINE": "1",
            "GATEWAY_CONFIG": str(self.folder / "upstream.toml"),
            "GATEWAY_DATA_DIR": str(self.folder / "upstream-data"),
            "GATEWAY_API_KEYS": UPSTREAM_KEY,
        }
        (self.folder / "upstream.toml").write_text(f"[server]\nport = {self.upstream_port}\n{LOCAL_ROW}", encoding="utf-8")
        (self.folder / "data").mkdir()
        (self.folder / "upstream-data").mkdir()
        (self.folder / "data" / "models").mkdir()
        (self.folder / "upstream-data" / "models").symlink_to(self.folder / "data" / "models")  # compiled once
        probe = f"http://{HOST}:{self.upstream_port}/readyz"
        return Process([str(BIN / "gateway"), "serve"], folder=self.folder, environment=environment, probe=probe)

    def redis_process(self) -> Process:
        command = ["redis-server", "--port", str(self.redis_port), "--bind", HOST, "--save", "", "--dir", str(self.folder)]
        return Process(command, folder=self.folder, environment={})

    def start(self) -> None:
        for process in (self.redis, self.upstream, self.gateway):
            if process is not None:
                process.start()
                process.wait_until_ready()

    def stop(self) -> int:
        """The gateway's exit code."""
        code = self.gateway.stop()
        self.upstream.stop()
        if self.redis is not None:
            self.redis.stop()
        return code

    def command(self, *arguments: str) -> Any:
        """What `gateway … --json` tells."""
        done = subprocess.run(
            [str(BIN / "gateway"), *arguments, "--json"], env={**self.gateway.environment}, cwd=self.folder,
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    def new_caller(self, name: str, model: str, *terms: str) -> Caller:
        made = self.command("keys", "create", "--name", name, *terms)  # a server knows it within two seconds
        return Caller(name, made["key"], model, made["id"])
