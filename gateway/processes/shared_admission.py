"""Admission whose bounds hold over all fronts together."""

from types import TracebackType

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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        self.admission.shared_requests.add(-1)
        self.admission.shared_bytes.add(-self.num_bytes)


class SharedAdmission(Admission):
    """`num_requests` and `num_bytes` are this front's own."""

    def __init__(self, *, max_requests: int, max_bytes: int, totals: Totals, front: int) -> None:
        super().__init__(max_requests=max_requests, max_bytes=max_bytes)
        self.shared_requests: SharedCount = totals.of_front("requests", front)
        self.shared_bytes: SharedCount = totals.of_front("body_bytes", front)

    def enter(self) -> Permit:
        """Admits a request until the permit's block ends. Raises Overloaded if all fronts together admitted `max_requests`."""
        if self.shared_requests.add(1) > self.max_requests:
            self.shared_requests.add(-1)
            raise Overloaded("Too many requests are being served.")
        self.num_requests += 1
        return SharedPermit(self)
