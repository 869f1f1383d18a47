"""uvicorn with a stop of our own: SIGTERM finishes what runs and exits 0; a second signal ends at once.

uvicorn alone stops accepting, finishes, and then ends by the very signal, which looks like a crash to whoever started it.
"""

import os
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from gateway.api.connection import Connection, Unread
from gateway.config import ServerSettings
from gateway.errors import OperatorError
from gateway.metrics import Metrics

BACKLOG = 2048


class Server(uvicorn.Server):
    """`on_stop` is called once, when the first signal arrives."""

    def __init__(self, app: Any, settings: ServerSettings, *, metrics: Metrics, on_stop: Callable[[], None]) -> None:
        self.unread = unread = Unread(settings.max_unsent_bytes)
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                http=partial(Connection, settings=settings, metrics=metrics, unread=unread),  # type: ignore[arg-type]
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # the edge reads them itself, and believes whom it may
                timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]  # it goes to call_later
                timeout_graceful_shutdown=max(1, round(settings.drain_timeout_seconds)),
            )
        )
        self.on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a signal handler
        if self.should_exit:
            self.force_exit = True
        else:
            self.stop()

    def drain_for(self, seconds: float) -> None:
        """How long requests under way may take once it is told to stop."""
        self.config.timeout_graceful_shutdown = max(1, round(seconds))

    def stop(self) -> None:
        self.on_stop()
        self.should_exit = True


def bound_socket(settings: ServerSettings) -> socket.socket:
    """Raises OperatorError saying why the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        errno = getattr(error, "errno", None)
        reason = os.strerror(errno) if errno and errno > 0 else "it is not a valid address"
        raise OperatorError(f"cannot listen on {settings.host}:{settings.port}: {reason}") from None
