"""Stands between a client and the gateway, passes everything on, and keeps what was said. It can say a thing first, or be slow."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from compat_tests.standin import Canned

OF_THE_CONNECTION = {"connection", "host", "keep-alive", "transfer-encoding", "content-length", "accept-encoding", "date"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer; `headers` are the request's, as they were spelled."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    status: int
    answer: bytes

    @property
    def sent(self) -> Any:
        return json.loads(self.body)

    @property
    def embeddings(self) -> list[Any]:
        return [row["embedding"] for row in json.loads(self.answer)["data"]]


class Witness(ThreadingHTTPServer):
    """In front of the server on `port`. `seen` is in the order in which the answers were known."""

    def __init__(self, port: int, canned: list[Canned], delay_seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream_port = port
        self.canned = canned
        self.delay_seconds = delay_seconds
        self.is_closing = threading.Event()
        self.seen: list[Exchange] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def statuses(self) -> list[int]:
        return [exchange.status for exchange in self.seen]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client who left before the answer is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: a connection for each request, so nothing is left open."""

    server: Witness

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.canned:
            said = self.server.canned.pop(0)
            status, headers, answer = said.status, {"Content-Type": "application/json", **said.headers}, said.body
        else:
            status, headers, answer = self.passed_on(body)
        self.server.seen.append(Exchange(self.command, self.path, self.headers.items(), body, status, answer))
        self.server.is_closing.wait(self.server.delay_seconds)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream_port, timeout=60)
        try:
            connection.request(self.command, self.path, body, self.of_the_request(self.headers.items()))
            answer = connection.getresponse()
            return answer.status, self.of_the_request(answer.getheaders()), answer.read()
        finally:
            connection.close()

    @staticmethod
    def of_the_request(headers: list[tuple[str, str]]) -> dict[str, str]:
        return {name: value for name, value in headers if name.lower() not in OF_THE_CONNECTION}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Says nothing."""


@contextmanager
def witness_of(port: int, *canned: Canned, delay_seconds: float = 0) -> Iterator[Witness]:
    server = Witness(port, list(canned), delay_seconds)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.is_closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
