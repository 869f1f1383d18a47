"""The endpoints of an upstream, and the choice among them: power of two choices."""

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
    """`address` is the configured one, before a path is added.

    `proof` says whether its vectors are known to be the row's; only then is it used. `is_suspect` is set by a failure, until the
    next probe. `verified_at` is when it last gave the row's vectors to a probe, and `has_traffic` says whether requests went there
    since. `limited_until` is the end of a 429. All times are of its breaker's clock, but `replied_at`, its last reply by
    `time.monotonic`.
    """

    def __init__(self, address: str, path: str, query: dict[str, str], breaker: Breaker) -> None:
        self.address = address
        self.query = query
        self.url = self.with_path(path)
        self.breaker = breaker
        self.began: dict[int, float] = {}  # when each outstanding request began, oldest first
        self.numbers = itertools.count()
        self.proof: Proof = "unproven"
        self.is_suspect = False
        self.has_traffic = False
        self.verified_at = 0.0
        self.limited_until = 0.0
        self.replied_at = 0.0
        self.was_unreachable = False  # since its last reply: it may have restarted
        self.retry_at = 0.0  # when an unused endpoint is measured again
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
        """For the metrics: 1 while its breaker is open."""
        return float(self.breaker.state == "open")

    def used_or_not(self) -> float:
        """For the metrics: 1 while its vectors are known to be the row's."""
        return float(self.proof == "used")

    def with_path(self, path: str) -> URL:
        """Another path behind the address, with what is put behind every request's."""
        return URL(f"{self.address}{path}").with_query(self.query or None)

    def beside(self, path: str) -> URL:
        """Another path of the same server."""
        return URL(f"{self.address}{path}")

    def at_root(self, path: str) -> URL:
        """A path at the server's root, beside /v1."""
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
    """Power of two choices: picks the less busy of two random endpoints. Nearly as even as least-connections, without herding."""

    def __init__(
        self, endpoints: Sequence[Endpoint], sample: Callable[[list[Endpoint], int], list[Endpoint]] = random.sample
    ) -> None:
        self.endpoints = list(endpoints)
        self.sample = sample

    def choose(self, but: Endpoint | None = None) -> Endpoint | None:
        """Returns a used endpoint that admits requests now, if possible another than `but`. Returns None if none admits any."""
        admitting = [endpoint for endpoint in self.used if endpoint.breaker.admits]
        others = [endpoint for endpoint in admitting if endpoint is not but] or admitting
        if len(others) < 2:  # noqa: PLR2004 - nothing to choose from
            return others[0] if others else None
        first, second = self.sample(others, 2)
        return second if second.num_outstanding < first.num_outstanding else first

    @property
    def used(self) -> list[Endpoint]:
        """The endpoints whose vectors were proven to be the row's."""
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
