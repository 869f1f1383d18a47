"""One address of an upstream, and the choice among several."""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from yarl import URL

from gateway.upstream.breaker import Breaker


class Endpoint:
    """`address` is what the configuration says, without what a path adds to it."""

    def __init__(self, address: str, path: str, query: dict[str, str], breaker: Breaker) -> None:
        self.address = address
        self.url = URL(f"{address}{path}").with_query(query or None)
        self.breaker = breaker
        self.began: dict[int, float] = {}  # of what is under way, oldest first
        self.numbers = itertools.count()

    @property
    def num_outstanding(self) -> int:
        return len(self.began)

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest request has been without a reply."""
        return time.monotonic() - next(iter(self.began.values())) if self.began else 0.0

    @property
    def label(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.netloc}{parts.path}"

    def open_or_not(self) -> float:
        """For the metrics: 1 while it is left alone."""
        return float(self.breaker.state == "open")

    def beside(self, path: str) -> URL:
        """Another path of the same server."""
        return URL(f"{self.address}{path}")

    @contextmanager
    def entered(self) -> Iterator[None]:
        number = next(self.numbers)
        self.began[number] = time.monotonic()
        self.breaker.enter()
        try:
            yield
        finally:
            del self.began[number]


class Endpoints:
    """Of two taken at random the one with fewer outstanding requests: nearly as even as asking all, and without a herd."""

    def __init__(
        self, endpoints: Sequence[Endpoint], sample: Callable[[list[Endpoint], int], list[Endpoint]] = random.sample
    ) -> None:
        self.endpoints = list(endpoints)
        self.sample = sample

    def choose(self, but: Endpoint | None = None) -> Endpoint | None:
        """One that takes requests now, if possible another than `but`. None where all are left alone."""
        admitting = [endpoint for endpoint in self.endpoints if endpoint.breaker.admits]
        others = [endpoint for endpoint in admitting if endpoint is not but] or admitting
        if len(others) < 2:  # noqa: PLR2004 - nothing to choose from
            return others[0] if others else None
        first, second = self.sample(others, 2)
        return second if second.num_outstanding < first.num_outstanding else first

    @property
    def num_outstanding(self) -> int:
        return sum(endpoint.num_outstanding for endpoint in self.endpoints)

    @property
    def oldest_seconds(self) -> float:
        return max(endpoint.oldest_seconds for endpoint in self.endpoints)

    @property
    def is_up(self) -> bool:
        return any(endpoint.breaker.state != "open" for endpoint in self.endpoints)

    @property
    def wait_seconds(self) -> float:
        return min(endpoint.breaker.wait_seconds for endpoint in self.endpoints)
