"""An outage of something the gateway depends on: told once when it begins and once when it ends, and shown by a gauge meanwhile."""

import time
from collections.abc import Callable

from gateway.log import get_logger

log = get_logger()


class StoreOutage:
    """`what` begins the events in the log: `what_unavailable`, an error, and `what_available`. Used on the event loop alone."""

    def __init__(
        self,
        what: str,
        *,
        hint: str,
        show: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`show` is given 1 while it is there and 0 while it is not: a gauge's `set`."""
        self.begun, self.ended = f"{what}_unavailable", f"{what}_available"
        self.hint = hint
        self.show = show
        self.clock = clock
        self.reason: str | None = None
        self.began_at = 0.0
        show(1)

    def begin(self, reason: str) -> None:
        """May be called again and again while it lasts; the first reason is the one that is told."""
        if self.reason is None:
            self.reason, self.began_at = reason, self.clock()
            self.show(0)
            log.error(self.begun, reason=reason, hint=self.hint)

    def end(self) -> None:
        if self.reason is not None:
            self.reason = None
            self.show(1)
            log.info(self.ended, after_seconds=round(self.clock() - self.began_at, 1))
