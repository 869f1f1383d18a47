"""Log sampling of requests without a key: the first lines of each kind in a window are written, and the rest are counted.

One client without a key could cause 2.2 MB of log a second. Requests with a key are always logged; metrics count everything.
"""

import asyncio
from collections import Counter

from gateway.log import get_logger
from gateway.metrics import Metrics

WINDOW_SECONDS = 10.0
MAX_LINES = 50  # of each kind in a window: for a dozen kinds 20 KB a second at most

log = get_logger()


class LogSampler:
    """Counts lines by `kind`: a code of gateway/errors/, or "ok", so kinds are few. Used on the event loop alone."""

    def __init__(self, metrics: Metrics, *, window_seconds: float = WINDOW_SECONDS) -> None:
        self.metrics = metrics
        self.window_seconds = window_seconds
        self.num_lines: Counter[str] = Counter()
        self.timer: asyncio.TimerHandle | None = None

    def has_room(self, kind: str) -> bool:
        """Counts one line. Returns whether to write it. A window begins with its first line of any kind."""
        if self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(self.window_seconds, self.end_window)
        self.num_lines[kind] += 1
        if self.num_lines[kind] <= MAX_LINES:
            return True
        self.metrics.process.log_lines_left_out.labels(kind).inc()
        return False

    def end_window(self) -> None:
        """Ends the window. Logs how many lines were left out, if any were."""
        num_left_out = {kind: number - MAX_LINES for kind, number in self.num_lines.items() if number > MAX_LINES}
        if self.timer is not None:
            self.timer.cancel()
        self.timer = None
        self.num_lines.clear()
        if num_left_out:
            log.info("lines_left_out", seconds=self.window_seconds, **num_left_out)
