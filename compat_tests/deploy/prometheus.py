"""A real Prometheus, on a free port of 127.0.0.1, that scrapes one gateway every second and knows the rules of deploy/."""

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from compat_tests.deploy.part import DEPLOY, part
from compat_tests.process import free_port
from compat_tests.waiting import until

RULES = [DEPLOY / "prometheus" / name for name in ("recording.yml", "alerts.yml")]


class Prometheus:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> object:
        """The `data` of an answer. Raises HTTPError for a query that is wrong."""
        with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, object]]:
        found = self.get("/api/v1/query", query=expression)
        assert isinstance(found, dict)
        return found["result"]

    def is_ready(self) -> bool:
        try:
            return bool(self.get("/api/v1/status/buildinfo"))
        except (urllib.error.URLError, ConnectionError):
            return False


@contextmanager
def watching(folder: Path, *targets: str) -> Iterator[Prometheus]:
    port = free_port()
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in RULES],
        "scrape_configs": [{"job_name": "gateway", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "tsdb",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    command = [part("prometheus", package="prometheus"), *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        prometheus = Prometheus(port)
        until(prometheus.is_ready, seconds=30, what="Prometheus")
        yield prometheus
    finally:
        process.terminate()
        process.wait(30)
