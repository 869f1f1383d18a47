"""The sockets that the supervisor opens, and keeps open while the processes that accept from them come and go."""

import socket
from contextlib import suppress

from gateway.config import Config
from gateway.server.listening import Listening
from gateway.server.metrics_port import metrics_listening


class Listeners:
    """`of_fronts` are the listening sockets of all fronts, `of_engine` those of the metrics' own port."""

    def __init__(self, config: Config) -> None:
        """Raises OperatorError with the reason if an address cannot be used."""
        self.clients = Listening(config.server.addresses, config.server.port, mode=config.server.unix_socket_mode)
        try:
            self.metrics = metrics_listening(config.metrics, config.server)
        except BaseException:
            self.clients.close()
            raise

    @property
    def of_fronts(self) -> list[socket.socket]:
        return self.clients.sockets

    @property
    def of_engine(self) -> list[socket.socket]:
        return self.metrics.sockets if self.metrics is not None else []

    @property
    def urls(self) -> list[str]:
        return self.clients.urls

    def release(self, kept: list[socket.socket]) -> None:
        """In a child: closes the others' sockets. The files of Unix sockets stay: they are the supervisor's."""
        for listening in (*self.of_fronts, *self.of_engine):
            if listening not in kept:
                with suppress(OSError):
                    listening.close()

    def close(self) -> None:
        self.clients.close()
        if self.metrics is not None:
            self.metrics.close()
