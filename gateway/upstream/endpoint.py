"""One address of an upstream, and the choice among several."""

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

from yarl import URL

from gateway.upstream.breaker import Breaker

Proof = Literal["unproven", "used", "other", "unsteady"]


class Endpoint:
    """`address` is what the configuration says, without what a path adds to it.

    `proof` says whether its vectors are known to be the row's: only then is it used. `is_suspect` after a failure, until it is
    probed. `verified_at` is when it last gave the row's vectors to a probe, `has_traffic` whether it was asked for others since,
    `limited_until` the end of a 429, all on the clock of its breaker.
    """

    def __init__(self, address: str, path: str, query: dict[str, str], breaker: Breaker) -> None:
        self.address = address
        self.url = URL(f"{address}{path}").with_query(query or None)
        self.breaker = breaker
        self.began: dict[int, float] = {}  # of what is under way, oldest first
        self.numbers = itertools.count()
        self.proof: Proof = "unproven"
        self.is_suspect = False
        self.has_traffic = False
        self.verified_at = 0.0
        self.limited_until = 0.0
        self.was_unreachable = False  # since its last answer: it may have been started anew
        self.retry_at = 0.0  # when an address that is not used is tried again
        self.num_tries = 0

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

    def used_or_not(self) -> float:
        """For the metrics: 1 while its vectors are known to be the row's."""
        return float(self.proof == "used")

    def beside(self, path: str) -> URL:
        """Another path of the same server."""
        return URL(f"{self.address}{path}")

    def at_root(self, path: str) -> URL:
        """A path that the server has beside /v1."""
        return URL(f"{self.address.removesuffix('/v1')}{path}")

    @contextmanager
    def in_use(self) -> Iterator[None]:
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
        """One that is used and takes requests now, if possible another than `but`. None where all are left alone."""
        admitting = [endpoint for endpoint in self.used if endpoint.breaker.admits]
        others = [endpoint for endpoint in admitting if endpoint is not but] or admitting
        if len(others) < 2:  # noqa: PLR2004 - nothing to choose from
            return others[0] if others else None
        first, second = self.sample(others, 2)
        return second if second.num_outstanding < first.num_outstanding else first

    @property
    def used(self) -> list[Endpoint]:
        """Those whose vectors were proven to be the row's."""
        return [endpoint for endpoint in self.endpoints if endpoint.proof == "used"]

    @property
    def num_outstanding(self) -> int:
        return sum(endpoint.num_outstanding for endpoint in self.endpoints)

    @property
    def oldest_seconds(self) -> float:
        return max(endpoint.oldest_seconds for endpoint in self.endpoints)

    @property
    def is_up(self) -> bool:
        return any(endpoint.breaker.state != "open" for endpoint in self.used or self.endpoints)

    @property
    def wait_seconds(self) -> float:
        return min(endpoint.breaker.wait_seconds for endpoint in self.used or self.endpoints)
