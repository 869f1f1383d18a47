"""Room: how many requests, and how many bytes of their bodies, are held at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import Overloaded


class Permit:
    """One request's place, from its first byte to its reply."""

    def __init__(self, admission: "Admission") -> None:
        self.admission = admission
        self.num_bytes = 0

    def hold(self, num_bytes: int) -> None:
        """So many more bytes of body are kept in memory. Raises Overloaded when all requests together keep too many."""
        if self.admission.num_bytes + num_bytes > self.admission.max_bytes:
            raise Overloaded("Its memory for request bodies is full.")
        self.num_bytes += num_bytes
        self.admission.num_bytes += num_bytes
        self.admission.num_bytes_ever += num_bytes


class Admission:
    """Used on the event loop alone, so counting needs no lock."""

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.num_requests = 0
        self.num_bytes = self.num_bytes_ever = 0

    @contextmanager
    def enter(self) -> Iterator[Permit]:
        """Raises Overloaded when every place is taken."""
        if self.num_requests >= self.max_requests:
            raise Overloaded("Too many requests are being served.")
        permit = Permit(self)
        self.num_requests += 1
        try:
            yield permit
        finally:
            self.num_requests -= 1
            self.num_bytes -= permit.num_bytes
