"""The databases that snippets write to: PostgreSQL with pgvector itself, and as much of Elasticsearch as its client needs."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from compat_tests.chromium import skip_or_fail
from compat_tests.process import ROOT, free_port

NODE_FOLDER = ROOT / "compat_tests/node"


@contextmanager
def postgres() -> Iterator[int]:
    """Its port. It is PostgreSQL compiled to WebAssembly, from npm, as Debian has no pgvector for its own."""
    if shutil.which("node") is None or not (NODE_FOLDER / "node_modules/@electric-sql").is_dir():
        skip_or_fail("Node.js or its packages are missing: `npm ci` in compat_tests/node")
    port = free_port()
    process = subprocess.Popen(
        ["node", NODE_FOLDER / "postgres.mjs", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield port
    finally:
        process.communicate(timeout=60)


@dataclass
class Index:
    mapping: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def nearest(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        query = np.array(asked["query_vector"])
        hits = [
            {"_id": name, "_source": document, "_score": (1 + float(query @ np.array(document[asked["field"]]))) / 2}
            for name, document in self.documents.items()
        ]
        return sorted(hits, key=lambda hit: -hit["_score"])[: asked["k"]]


@contextmanager
def elasticsearch() -> Iterator[tuple[str, Index]]:
    """Its address, and what was written into the one index it has."""
    server = StandIn(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class StandIn(ThreadingHTTPServer):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.index = Index()


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        status, said = self.said(json.loads(raw) if raw else {})
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("x-elastic-product", "Elasticsearch")
        self.send_header("content-type", "application/vnd.elasticsearch+json;compatible-with=9")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815 - the names http.server looks for

    def said(self, body: dict[str, Any]) -> tuple[int, Any]:
        index, path = self.server.index, self.path.partition("?")[0].split("/")[1:]
        match self.command, path:
            case "HEAD", ["notes"]:
                return (200 if index.mapping else 404), {}
            case "PUT", ["notes"]:
                index.mapping = body["mappings"]["properties"]
                return 200, {"acknowledged": True, "shards_acknowledged": True, "index": "notes"}
            case "PUT", ["notes", "_doc", name]:
                index.documents[name] = body
                return 201, {"_id": name, "result": "created"}
            case "POST", ["notes", "_refresh"]:
                return 200, {}
            case "POST", ["notes", "_search"]:
                return 200, {"hits": {"hits": index.nearest(body["knn"])}}
        return 400, {"error": f"{self.command} {self.path} is not what the snippet asks"}

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""
