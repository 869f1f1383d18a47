"""Admission control: bounds the requests, and the bytes of their bodies, that are in memory at once."""

from types import TracebackType

from gateway.errors import Overloaded


class Permit:
    """One admitted request, from its first byte to its response. A context, which `Admission.enter` begins."""

    def __init__(self, admission: "Admission") -> None:
        self.admission = admission
        self.num_bytes = 0

    def __enter__(self) -> "Permit":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.admission.num_requests -= 1
        self.admission.num_bytes -= self.num_bytes

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

    def enter(self) -> Permit:
        """Admits a request until the permit's block ends. Raises Overloaded if `max_requests` are admitted already."""
        if self.num_requests >= self.max_requests:
            raise Overloaded("Too many requests are being served.")
        self.num_requests += 1
        return Permit(self)
