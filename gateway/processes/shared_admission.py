"""Admission whose bounds hold over all fronts together."""

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.access.admission import Admission, Permit
from gateway.errors import Overloaded
from gateway.processes.totals import SharedCount, Totals


class SharedPermit(Permit):
    """A Permit that counts its bytes among those of all fronts."""

    admission: "SharedAdmission"

    def hold(self, num_bytes: int) -> None:
        if self.admission.shared_bytes.add(num_bytes) > self.admission.max_bytes:
            self.admission.shared_bytes.add(-num_bytes)
            raise Overloaded("Its memory for request bodies is full.")
        self.num_bytes += num_bytes
        self.admission.num_bytes += num_bytes
        self.admission.num_bytes_ever += num_bytes


class SharedAdmission(Admission):
    """`num_requests` and `num_bytes` are this front's own."""

    def __init__(self, *, max_requests: int, max_bytes: int, totals: Totals, front: int) -> None:
        super().__init__(max_requests=max_requests, max_bytes=max_bytes)
        self.shared_requests: SharedCount = totals.of_front("requests", front)
        self.shared_bytes: SharedCount = totals.of_front("body_bytes", front)

    @contextmanager
    def enter(self) -> Iterator[Permit]:
        """Admits a request until the block ends. Raises Overloaded if all fronts together admitted `max_requests` already."""
        if self.shared_requests.add(1) > self.max_requests:
            self.shared_requests.add(-1)
            raise Overloaded("Too many requests are being served.")
        permit = SharedPermit(self)
        self.num_requests += 1
        try:
            yield permit
        finally:
            self.num_requests -= 1
            self.num_bytes -= permit.num_bytes
            self.shared_requests.add(-1)
            self.shared_bytes.add(-permit.num_bytes)
