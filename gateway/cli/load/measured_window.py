"""The measurement window: which replies count, so that their number over its length is the throughput."""


class MeasurementWindow:
    """Opens with the first reply after the warm-up, which does not count, and closes with one that counts.

    Clients that share a device fairly finish together; a window cut by the clock would count or miss such a burst. So it closes,
    after `seconds`, only with whole rounds: a round is as many replies as there are clients. It also waits until each client had
    a reply, however slow the server is. Without a warm-up it opens with the first requests, as none are in flight before.
    """

    def __init__(self, *, num_clients: int, seconds: float, warmup_seconds: float) -> None:
        self.num_clients = num_clients
        self.min_seconds = seconds
        self.warmup_seconds = warmup_seconds
        self.warm_at = 0.0
        self.opened_at: float | None = None
        self.closed_at: float | None = None
        self.num_answers = 0
        self.unanswered = set(range(num_clients))

    def start(self, now: float) -> None:
        """Called when the first requests are sent."""
        self.warm_at = now + self.warmup_seconds
        if not self.warmup_seconds:
            self.opened_at = now

    def takes(self, client: int, now: float) -> bool:
        """Whether this reply to `client` counts. `now` never decreases."""
        if self.is_closed or now < self.warm_at:
            return False
        if self.opened_at is None:
            self.opened_at = now
            return False
        self.num_answers += 1
        self.unanswered.discard(client)
        is_whole = not self.unanswered and self.num_answers % self.num_clients == 0
        if is_whole and now >= self.opened_at + self.min_seconds:
            self.closed_at = now
        return True

    def close(self, now: float) -> None:
        """Closes it early, whole round or not."""
        if self.closed_at is None:
            self.closed_at = now

    @property
    def is_closed(self) -> bool:
        return self.closed_at is not None

    def seconds_until(self, now: float) -> float:
        """How long it has been open at `now`."""
        return 0.0 if self.opened_at is None else now - self.opened_at

    @property
    def seconds(self) -> float:
        """How long it was open, once it is closed."""
        return 0.0 if self.closed_at is None else self.seconds_until(self.closed_at)
