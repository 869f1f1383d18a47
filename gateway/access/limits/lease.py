"""The interface of a lease on a caller's limits: of this process's own limiter, or of another process's."""

from types import TracebackType
from typing import Protocol, Self

from gateway.access.keys.key import Caller
from gateway.access.limits.concurrency_queue import OnDisconnect
from gateway.access.limits.gcra import RateLimits
from gateway.access.limits.local_store import RateState


class Lease(Protocol):
    """A context for one request. `state` is the caller's rate state, None if unknown. Entering raises RateLimited at a limit.

    `num_bytes` is the size of the request's body, which some errors are charged for.
    """

    num_bytes: int

    @property
    def caller(self) -> Caller: ...

    @property
    def limits(self) -> RateLimits: ...

    @property
    def state(self) -> RateState | None: ...

    @property
    def waited_seconds(self) -> float:
        """How long it waited for its turn."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def charge(self, num_tokens: int, *, num_cached_tokens: int = 0) -> None:
        """Charges a request's tokens. Raises RateLimited or RequestExceedsLimit."""


class LeaseSource(Protocol):
    """What gives leases."""

    def lease(self, caller: Caller, on_disconnect: OnDisconnect | None = None) -> Lease:
        """A lease for one request, from arrival to response. The entries of `on_disconnect` are called if the client leaves."""
