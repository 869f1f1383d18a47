"""One request of each client, kept in ../recorded/: the unit tests replay it without the client.

`python -m compat_tests.matrix.recording` writes them anew.
"""

import base64
import json
import os
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from compat_tests.matrix.cells import CLIENTS, Client
from compat_tests.matrix.program import Program, Refusal
from compat_tests.process import ROOT
from compat_tests.ranks import write_tiktoken_cache
from compat_tests.texts import MODEL

FOLDER = ROOT / "compat_tests/recorded"
KEY = "KEY"  # a request is recorded with this for a key, so no key has to be taken out
TEXTS = ["The first text.", "Another, naïve: 日本語 🎉"]
VECTOR = (0.6, 0.8)

# What a machine, a version or a connection adds.
VOLATILE = {
    "host", "connection", "content-length", "accept-encoding", "user-agent",
    "x-stainless-arch", "x-stainless-os", "x-stainless-package-version", "x-stainless-runtime", "x-stainless-runtime-version",
}  # fmt: skip


class Recorder(ThreadingHTTPServer):
    """Answers every request as a server of this API would, and keeps the last one."""

    last: dict[str, Any]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Recorder

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        kept = {name: headers[name] for name in sorted(headers) if name not in VOLATILE}
        self.server.last = {"method": self.command, "path": self.path, "headers": kept, "body": body.decode()}
        answer = answer_to(json.loads(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Says nothing."""


def answer_to(asked: dict[str, Any]) -> bytes:
    is_base64 = asked.get("encoding_format") == "base64"
    embedding = base64.b64encode(struct.pack("<2f", *VECTOR)).decode() if is_base64 else VECTOR
    data = [{"object": "embedding", "index": index, "embedding": embedding} for index in range(len(asked["input"]))]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return json.dumps({"object": "list", "data": data, "model": MODEL, "usage": usage}).encode()


@contextmanager
def recorder() -> Iterator[Recorder]:
    server = Recorder(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def recorded(client: Client, program: Program) -> dict[str, Any]:
    """What `client` sends for TEXTS when nothing but its base URL, its key and its model was set."""
    with recorder() as server:
        answer = program.ask(base_url=server.base_url, key=KEY, model=MODEL, input=TEXTS)
        assert not isinstance(answer, Refusal), answer
        assert len(answer) == len(TEXTS)
    return {"client": client.title, "texts": [client.sends(text) for text in TEXTS], **server.last}


def file_of(client: Client) -> Path:
    return FOLDER / f"{client.name}.json"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_tiktoken_cache(Path(folder))
        os.environ["TIKTOKEN_CACHE_DIR"] = folder
        for client in CLIENTS:
            program = Program(client, Path(folder))
            try:
                content = json.dumps(recorded(client, program), indent=2, ensure_ascii=False)
            finally:
                program.close()
            file_of(client).write_text(content + "\n", encoding="utf-8")
            print(file_of(client).relative_to(ROOT))


if __name__ == "__main__":
    main()
