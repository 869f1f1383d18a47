"""Which answers count, so that their number over the time is the speed."""


class MeasurementWindow:
    """Opens with the first answer after the warm-up, not counted itself, and closes with a counted one.

    Clients that share a device fairly finish together, and a window cut by the clock would count such a burst or miss it. So it
    closes after `seconds` only with whole rounds, a round being as many answers as there are clients, and not before each client
    had an answer, however slow the server is. Without a warm-up it opens with the first requests, as nothing is under way before.
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
        """The first requests are sent."""
        self.warm_at = now + self.warmup_seconds
        if not self.warmup_seconds:
            self.opened_at = now

    def takes(self, client: int, now: float) -> bool:
        """Whether what was answered to `client` counts. `now` never goes back."""
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
        """Whatever is missing: somebody wants no more."""
        if self.closed_at is None:
            self.closed_at = now

    @property
    def is_closed(self) -> bool:
        return self.closed_at is not None

    def seconds_until(self, now: float) -> float:
        """How long it has been open."""
        return 0.0 if self.opened_at is None else now - self.opened_at

    @property
    def seconds(self) -> float:
        """How long it was open, once it is closed."""
        return 0.0 if self.closed_at is None else self.seconds_until(self.closed_at)
