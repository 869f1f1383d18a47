"""The interface of access control, and the choice between its two implementations: without keys, or with keys."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.access.database import Database
from gateway.access.key_access import KeyAccess, build_key_access
from gateway.access.keys.key import Caller
from gateway.access.open_access import OpenAccess
from gateway.config import AuthSettings, ListenAddress, StoreSettings, UsageSettings
from gateway.metrics import Metrics


class RequestAccess(Protocol):
    """What a request needs of access control. Used on the event loop only."""

    async def authenticate(self, read_key: Callable[[], str]) -> Caller:
        """Returns the caller. `read_key` is called only if a key is needed.

        Raises InvalidKey, StoreUnavailable, or what `read_key` raises.
        """

    def refuse_spent(self, caller: Caller) -> None:
        """Raises InsufficientQuota once the caller's budget is spent."""

    def record(self, caller: Caller, *, model: str, num_inputs: int, num_tokens: int, num_cached_tokens: int) -> None:
        """Counts a request that was answered."""


class AccessControl(RequestAccess, Protocol):
    """`OpenAccess` or `KeyAccess`. Used on the event loop only."""

    @property
    def needs_key(self) -> bool:
        """Whether a caller must present a key."""

    @property
    def databases(self) -> Iterable[Database]:
        """The databases that it needs to start."""

    @property
    def parts(self) -> dict[str, Callable[[], bool]]:
        """The background tasks by name, each with a function that tells whether it runs."""

    @property
    def shortfalls(self) -> dict[str, Callable[[], str | None]]:
        """The parts that can run without the store. Each function returns how, in one public word, else None."""

    async def start(self) -> None:
        """Reads what requests need. Raises OperatorError."""

    def warn(self, *, addresses: Sequence[ListenAddress]) -> None:
        """Logs warnings for a gateway that listens on `addresses`."""

    def record(  # noqa: PLR0913 - each is counted
        self, caller: Caller, *, model: str, num_inputs: int, num_tokens: int, num_cached_tokens: int, num_requests: int = 1
    ) -> None:
        """Counts requests of one model that were answered."""

    def find_caller(self, public_id: str) -> Caller | None:
        """Returns the caller of a key in force, or None. Raises StoreUnavailable if nobody can tell."""

    def require_keys(self) -> KeyAccess:
        """Returns itself, for the administration of keys. Raises ConfigurationError if this access has no keys."""

    async def close(self) -> None: ...


def build_access_control(auth: AuthSettings, usage: UsageSettings, store: StoreSettings, metrics: Metrics) -> AccessControl:
    """Builds the implementation that `auth.mode` names. Raises ConfigurationError."""
    return OpenAccess() if auth.mode == "none" else build_key_access(auth, usage, store, metrics)
