"""Admission control: bounds the requests, and the bytes of their bodies, that are in memory at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import Overloaded


class Permit:
    """One admitted request, from its first byte to its response."""

    def __init__(self, admission: "Admission") -> None:
        self.admission = admission
        self.num_bytes = 0

    def hold(self, num_bytes: int) -> None:
        """Counts `num_bytes` more of the body. Raises Overloaded if all requests together would keep too many."""
        if self.admission.num_bytes + num_bytes > self.admission.max_bytes:
            raise Overloaded("Its memory for request bodies is full.")
        self.num_bytes += num_bytes
        self.admission.num_bytes += num_bytes
        self.admission.num_bytes_ever += num_bytes


class Admission:
    """Used on the event loop only, so counting needs no lock."""

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.num_requests = 0
        self.num_bytes = self.num_bytes_ever = 0

    @contextmanager
    def enter(self) -> Iterator[Permit]:
        """Admits a request until the block ends. Raises Overloaded if `max_requests` are admitted already."""
        if self.num_requests >= self.max_requests:
            raise Overloaded("Too many requests are being served.")
        permit = Permit(self)
        self.num_requests += 1
        try:
            yield permit
        finally:
            self.num_requests -= 1
            self.num_bytes -= permit.num_bytes
