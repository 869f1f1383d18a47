"""Stand-ins for what nginx speaks to: a server that remembers the headers it was sent, and a name server that knows one name."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Recorder:
    """On an address of loopback. `requests` are the headers of each, names in lower case; `status` is what it answers."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[dict[str, list[str]]] = []
        self.status = 200
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                names = {name.lower() for name in self.headers}
                recorder.requests.append({name: self.headers.get_all(name, []) for name in names})
                self.send_response(recorder.status)
                self.send_header("content-length", "0")
                self.end_headers()

            do_POST = do_GET  # noqa: N815 - as the library calls it

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((address, port), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextmanager
def recording(address: str = "127.0.0.1", port: int = 0) -> Iterator[Recorder]:
    recorder = Recorder(address, port)
    try:
        yield recorder
    finally:
        recorder.close()


class NameServer:
    """Answers every question for an A record with `addresses`, as Docker's does for a service of several containers."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            question, sender = self.socket.recvfrom(512)
            if not question:
                return
            asked = question[12 : question.index(b"\0", 12) + 5]
            records = b"".join(
                b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(address) for address in self.addresses
            )
            head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, len(self.addresses), 0, 0)
            self.socket.sendto(head + asked + records, sender)

    def close(self) -> None:
        self.socket.sendto(b"", self.socket.getsockname())
        self.thread.join()
        self.socket.close()
