"""uvicorn with a stop of our own: SIGTERM finishes what runs and exits 0; a second signal ends at once.

uvicorn alone stops accepting, finishes, and then ends by the very signal, which looks like a crash to whoever started it.
"""

import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from gateway.config import ServerSettings
from gateway.errors import OperatorError

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75  # longer than the 60 s of common proxies, which would else reuse a connection as it closes


class Server(uvicorn.Server):
    """`on_stop` is called once, when the first signal arrives."""

    def __init__(self, app: Any, settings: ServerSettings, *, on_stop: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(settings.drain_timeout_seconds)),
            )
        )
        self.on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a signal handler
        if self.should_exit:
            self.force_exit = True
        else:
            self.stop()

    def stop(self) -> None:
        self.on_stop()
        self.should_exit = True


def bound_socket(settings: ServerSettings) -> socket.socket:
    """Raises OperatorError saying why the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a valid address"
        raise OperatorError(f"cannot listen on {settings.host}:{settings.port}: {reason}") from None
