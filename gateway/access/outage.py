"""An outage of a store that the gateway depends on: logged once at its start and once at its end, and shown by a gauge."""

import time
from collections.abc import Callable

from gateway.log import get_logger

log = get_logger()


class StoreOutage:
    """`what` is the prefix of two log events: `what_unavailable`, an error, and `what_available`. Used on the event loop only."""

    def __init__(
        self,
        what: str,
        *,
        hint: str,
        show: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`show` is a gauge's `set`: called with 1 if the store is available, else with 0."""
        self.begun, self.ended = f"{what}_unavailable", f"{what}_available"
        self.hint = hint
        self.show = show
        self.clock = clock
        self.reason: str | None = None
        self.began_at = 0.0
        show(1)

    def begin(self, reason: str) -> None:
        """May be called repeatedly during an outage; only the first reason is logged."""
        if self.reason is None:
            self.reason, self.began_at = reason, self.clock()
            self.show(0)
            log.error(self.begun, reason=reason, hint=self.hint)

    def end(self) -> None:
        if self.reason is not None:
            self.reason = None
            self.show(1)
            log.info(self.ended, after_seconds=round(self.clock() - self.began_at, 1))
