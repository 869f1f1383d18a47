"""A small real server that answers as a test tells it to: what no gateway of ours would say."""

import base64
import json
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VECTOR = base64.b64encode(struct.pack("<2f", 0.6, 0.8)).decode()


@dataclass(frozen=True)
class Said:
    """`body` goes as it is if it is bytes, else as JSON."""

    status: int
    body: Any = b""
    location: str = ""


GONE = Said(0)  # closes the connection without a word


def good(asked: dict) -> Said:
    rows = [{"index": index, "embedding": VECTOR} for index in range(len(asked["input"]))]
    return Said(200, {"data": rows, "usage": {"prompt_tokens": 5 * len(rows)}})


def error(status: int, message: str, code: str | None = None) -> Said:
    return Said(status, {"error": {"message": message, "type": "some_error", "param": None, "code": code}})


class StandIn(ThreadingHTTPServer):
    """`asked` are the bodies that came, in order, and `keys` the Authorization headers."""

    def __init__(self, answer: Callable[[int, dict], Said], models: Said) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.models = models
        self.asked: list[dict] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left before it was answered."""


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: a connection for each request, so nothing is left open."""

    server: StandIn

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        self.say(self.server.models if self.path == "/v1/models" else error(404, "no such path"))

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.asked)
            self.server.asked.append(asked)
            self.server.keys.append(self.headers["Authorization"])
        self.say(self.server.answer(number, asked) if self.path == "/v1/embeddings" else error(404, "no such path"))

    def say(self, said: Said) -> None:
        if said is GONE:
            return
        body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
        self.send_response(said.status)
        self.send_header("Content-Length", str(len(body)))
        if said.location:
            self.send_header("Location", said.location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Says nothing."""


@contextmanager
def stand_in(answer: Callable[[int, dict], Said], *, models: Said | None = None) -> Iterator[StandIn]:
    """`answer` gets the number of a request, from 0, and its body; without `models` there is one, "m"."""
    server = StandIn(answer, models or Said(200, {"data": [{"id": "m"}]}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
