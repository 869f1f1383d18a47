"""Who is let in, and what becomes of it. There is always one: open to everybody, or with keys."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from gateway.access.database import Database
from gateway.access.key_access import KeyAccess, build_key_access
from gateway.access.keys.key import Caller
from gateway.access.open_access import OpenAccess
from gateway.config import AuthSettings, ListenAddress, StoreSettings, UsageSettings
from gateway.metrics import Metrics


class AccessControl(Protocol):
    """`OpenAccess` or `KeyAccess`. Used on the event loop alone."""

    @property
    def needs_key(self) -> bool:
        """Whether a caller must present a key."""

    @property
    def databases(self) -> Iterable[Database]:
        """What it cannot start without."""

    @property
    def parts(self) -> dict[str, Callable[[], bool]]:
        """The tasks that must run as long as this does, and whether they do."""

    @property
    def shortfalls(self) -> dict[str, Callable[[], str | None]]:
        """The parts that may go on without the store, and in a word for strangers how; None while they need not."""

    async def start(self) -> None:
        """Raises OperatorError."""

    def warn(self, *, addresses: Sequence[ListenAddress]) -> None:
        """Logs what an operator should know of a gateway that listens there."""

    async def authenticate(self, read_key: Callable[[], str]) -> Caller:
        """Who asks. Raises what `read_key` does, which is called where a key is needed; InvalidKey or StoreUnavailable."""

    def refuse_spent(self, caller: Caller) -> None:
        """Raises InsufficientQuota once the caller's budget is spent."""

    def record(self, caller: Caller, *, model: str, num_inputs: int, num_tokens: int, num_cached_tokens: int) -> None:
        """One request was answered."""

    def require_keys(self) -> KeyAccess:
        """Itself, for whoever administers keys. Raises ConfigurationError where there are none."""

    async def close(self) -> None: ...


def build_access_control(auth: AuthSettings, usage: UsageSettings, store: StoreSettings, metrics: Metrics) -> AccessControl:
    """Raises ConfigurationError."""
    return OpenAccess() if auth.mode == "none" else build_key_access(auth, usage, store, metrics)
