"""A TCP proxy that swallows data: it accepts what its connections send, but passes nothing on and never closes them."""

import select
import socket
import threading
from contextlib import suppress


class SwallowingProxy:
    """Passes everything on until `swallow`. Later connections work, except after `swallow(also_new=True)` and before `mend`."""

    def __init__(self, port: int) -> None:
        self.to_port = port
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.pairs: dict[socket.socket, socket.socket] = {}
        self.swallowed: set[socket.socket] = set()
        self.is_swallowing_new = False
        self.swallow_after: bytes | None = None  # once a client sends this
        self.num_accepted = 0
        self.waking, self.woken = socket.socketpair()
        self.lock = threading.Lock()
        self.is_over = False
        self.thread = threading.Thread(target=self.run, name="swallowing-proxy", daemon=True)
        self.thread.start()

    def swallow(self, *, also_new: bool = False) -> None:
        with self.lock:
            self.swallowed |= set(self.pairs)
            self.is_swallowing_new = also_new

    def mend(self) -> None:
        """Lets new connections work again. Swallowed ones stay swallowed."""
        with self.lock:
            self.is_swallowing_new = False

    def run(self) -> None:
        while not self.is_over:
            readable, _, _ = select.select([self.listening, self.woken, *self.pairs], [], [])
            for each in readable:
                if each is self.listening:
                    self.accept()
                elif each is not self.woken and each in self.pairs:
                    self.pass_on(each)

    def accept(self) -> None:
        client, _ = self.listening.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self.to_port))
        except OSError:  # the server is gone: so is its client's connection
            client.close()
            return
        with self.lock:
            self.num_accepted += 1
            self.pairs |= {client: server, server: client}
            if self.is_swallowing_new:
                self.swallowed |= {client, server}

    def pass_on(self, source: socket.socket) -> None:
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        with self.lock:
            target = self.pairs[source]
            if self.swallow_after is not None and self.swallow_after in data:
                self.swallow_after = None
                self.swallowed |= {source, target}
            is_swallowed = source in self.swallowed
        if not data:
            del self.pairs[source]  # if it is swallowed, the other side does not see the close
            if is_swallowed and target in self.pairs:
                return
            self.pairs.pop(target, None)
            source.close()
            target.close()
        elif not is_swallowed:
            with suppress(OSError):
                target.sendall(data)

    def close(self) -> None:
        self.is_over = True
        self.waking.send(b"x")
        self.thread.join(10)
        for each in {*self.pairs, *self.pairs.values(), self.listening, self.waking, self.woken}:
            each.close()

    def __enter__(self) -> "SwallowingProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
