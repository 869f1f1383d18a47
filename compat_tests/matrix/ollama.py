"""A stand-in for Ollama, run as a program: `python -m compat_tests.matrix.ollama PORT MODEL`.

It answers as docs/api.md ("Generate Embeddings") and server/routes.go (EmbedHandler) of ollama/ollama have it. Its vectors are made
from nothing but the text, so that a test knows them.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIMENSIONS = 1024  # mxbai-embed-large's


def vectors(texts: Sequence[str]) -> Any:
    """Shape (n, 1024), float32, of length 1: noise that is the text's own."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
    rows = np.stack([np.random.default_rng(seed).standard_normal(DIMENSIONS) for seed in seeds])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Ollama(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, model: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.model = model


class Handler(BaseHTTPRequestHandler):
    server: Ollama
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(200, b"Ollama is running", "text/plain; charset=utf-8")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/api/embed":
            self.reply(404, b"404 page not found", "text/plain")
        elif asked["model"] != self.server.model:
            self.say(404, {"error": f'model "{asked["model"]}" not found, try pulling it first'})
        else:
            texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
            durations = {"total_duration": 14143917, "load_duration": 1019500}  # nanoseconds
            count = sum(len(text.split()) + 2 for text in texts)
            self.say(
                200,
                {"model": asked["model"], "embeddings": vectors(texts).tolist(), **durations, "prompt_eval_count": count},
            )

    def say(self, status: int, content: dict[str, Any]) -> None:
        self.reply(status, json.dumps(content).encode(), "application/json; charset=utf-8")

    def reply(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Says nothing."""


if __name__ == "__main__":
    Ollama(int(sys.argv[1]), sys.argv[2]).serve_forever()
