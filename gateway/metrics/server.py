"""An HTTP server for /metrics on a port of its own, which Prometheus may reach where clients may not."""

import socket
from collections.abc import Callable, Iterable
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client.exposition import ThreadingWSGIServer

from gateway.background import BackgroundThread


class MetricsServer(ThreadingWSGIServer):
    """A WSGI server on a socket that listens already, in a thread of its own."""

    def __init__(self, listening: socket.socket, app: Callable[..., Iterable[bytes]]) -> None:
        self.server_name, self.server_port = address = listening.getsockname()[:2]
        super().__init__(address, _SilentHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.setup_environ()
        self.set_app(app)
        self.background = BackgroundThread("metrics", self.serve_forever)
        self.background.start()


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the library calls it
        """Logs nothing: a scrape is not worth a line."""
