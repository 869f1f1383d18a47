"""Circuit breaker: stops requests to an endpoint that keeps failing, then tries it with one request at a time.

    closed      requests pass; opens after `max_failures` in a row, or when `failing_share` of the last `window_seconds` failed
    open        none passes, for a pause of `Backoff`: from `open_seconds`, doubled after every failed try, up to `max_open_seconds`
    half-open   one passes at a time; closes after `num_probes` successes, opens again on a failure

Pure: it has no timer, and reads the time from its clock alone. Used only on the event loop.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import random
from typing import Literal

from gateway.backoff import Backoff

State = Literal["closed", "open", "half_open"]
MAX_OUTCOMES = 1000  # remembered for a window, however much traffic there is


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens and when it closes. `failing_share` is judged only among at least `min_requests`."""

    max_failures: int = 5
    failing_share: float = 0.5
    min_requests: int = 20
    window_seconds: float = 10.0
    open_seconds: float = 1.0
    max_open_seconds: float = 4.0
    num_probes: int = 2


class Breaker:
    """Call `enter` before each request, then exactly one of `on_success`, `on_failure` and `on_cancelled`."""

    def __init__(
        self, rules: BreakerRules, clock: Callable[[], float] = time.monotonic, draw: Callable[[], float] = random
    ) -> None:
        self.rules = rules
        self.backoff = Backoff(rules.open_seconds, rules.max_open_seconds, draw)
        self.clock = clock
        self.outcomes: deque[tuple[float, bool]] = deque(maxlen=MAX_OUTCOMES)
        self.num_in_a_row = 0
        self.opened_at: float | None = None
        self.open_seconds = 0.0
        self.num_openings = 0  # since it was closed
        self.num_probed = 0
        self.is_probing = False

    @property
    def state(self) -> State:
        if self.opened_at is None:
            return "closed"
        return "open" if self.clock() < self.opened_at + self.open_seconds else "half_open"

    @property
    def admits(self) -> bool:
        """Whether a request may go now."""
        return self.opened_at is None or (self.state == "half_open" and not self.is_probing)

    @property
    def wait_seconds(self) -> float:
        """Until a request may be tried."""
        return 0.0 if self.opened_at is None else max(0.0, self.opened_at + self.open_seconds - self.clock())

    def enter(self) -> None:
        self.is_probing = self.opened_at is not None

    def on_cancelled(self) -> None:
        """Ends a request that proves nothing about the endpoint, for example because its client left."""
        self.is_probing = False

    def on_success(self) -> None:
        self.is_probing = False
        self.num_in_a_row = 0
        if self.opened_at is None:
            self.outcomes.append((self.clock(), True))
        elif self.state == "half_open":  # a reply to a request from before it opened closes nothing
            self.num_probed += 1
            if self.num_probed >= self.rules.num_probes:
                self.close()

    def on_failure(self) -> None:
        self.is_probing = False
        if self.opened_at is None:
            self.outcomes.append((self.clock(), False))
            self.num_in_a_row += 1
            if self.must_open():
                self.open()
        elif self.state == "half_open":
            self.open()

    def must_open(self) -> bool:
        if self.num_in_a_row >= self.rules.max_failures:
            return True
        since = self.clock() - self.rules.window_seconds
        while self.outcomes and self.outcomes[0][0] < since:
            self.outcomes.popleft()
        num_failed = sum(not went_well for _, went_well in self.outcomes)
        return len(self.outcomes) >= self.rules.min_requests and num_failed >= self.rules.failing_share * len(self.outcomes)

    def open(self) -> None:
        self.num_openings += 1
        self.opened_at, self.open_seconds = self.clock(), self.backoff.pause_seconds(self.num_openings)
        self.num_probed = 0
        self.outcomes.clear()
        self.num_in_a_row = 0

    def close(self) -> None:
        """Closes the breaker and forgets all failures."""
        self.opened_at, self.num_openings = None, 0
        self.outcomes.clear()
        self.num_in_a_row = 0
