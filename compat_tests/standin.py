"""A small real HTTP server in front of the gateway: it gives the answers it was told to, in order, and then passes on everything.

For what a gateway alone says only under conditions that a test cannot hold still: full, or at a limit.
"""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEPT = ("content-type", "x-request-id", "openai-model", "openai-version")


@dataclass(frozen=True, slots=True)
class Canned:
    """An error in the contract's shape."""

    status: int
    message: str
    error_type: str
    code: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return json.dumps({"error": {"message": self.message, "type": self.error_type, "param": None, "code": self.code}}).encode()


RATE_LIMITED = Canned(
    429, "Rate limit reached for requests. Please try again in 1s.", "requests", "rate_limit_exceeded", {"Retry-After": "1"}
)
OVERLOADED = Canned(
    503, "The server is currently overloaded. Please try again shortly.", "server_error", "server_overloaded", {"Retry-After": "1"}
)
OUT_OF_QUOTA = Canned(
    429, "You exceeded your current quota.", "insufficient_quota", "insufficient_quota", {"x-should-retry": "false"}
)


class StandIn(ThreadingHTTPServer):
    """`num_requests` counts what came, `canned` is what it says before it passes on."""

    def __init__(self, port: int, canned: list[Canned]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream_port = port
        self.canned = canned
        self.num_requests = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: a connection for each request, so nothing is left open."""

    server: StandIn

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.num_requests += 1
        if self.server.canned:
            said = self.server.canned.pop(0)
            self.reply(said.status, {"Content-Type": "application/json", **said.headers}, said.body)
        else:
            self.reply(*self.passed_on(body))

    def passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream_port, timeout=60)
        try:
            connection.request(
                "POST", self.path, body, {"Authorization": self.headers["Authorization"], "Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() in KEPT}
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Says nothing."""


@contextmanager
def stand_in(port: int, *canned: Canned) -> Iterator[StandIn]:
    """In front of the gateway on `port`, for the length of a with block."""
    server = StandIn(port, list(canned))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
