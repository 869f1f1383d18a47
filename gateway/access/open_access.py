"""Access control without keys: every request has the same caller, without limits of its own. No usage is counted or kept."""

from collections.abc import Callable, Sequence
from typing import NoReturn

from gateway.access.keys.key import Caller
from gateway.config import ListenAddress
from gateway.errors import ConfigurationError
from gateway.log import get_logger

ANONYMOUS = Caller("anonymous")

log = get_logger()


class OpenAccess:
    """An `AccessControl` without keys."""

    needs_key = False
    databases = ()

    @property
    def parts(self) -> dict[str, Callable[[], bool]]:
        return {}

    @property
    def shortfalls(self) -> dict[str, Callable[[], str | None]]:
        return {}

    async def start(self) -> None:
        """Does nothing: there are no keys to read."""

    def warn(self, *, addresses: Sequence[ListenAddress]) -> None:
        if far := [str(address) for address in addresses if not address.is_local]:
            log.warning("authentication_is_off", host=", ".join(far), hint="EVERYBODY who reaches this address can use this server")

    async def authenticate(self, read_key: Callable[[], str]) -> Caller:  # noqa: ARG002 - a key that a client sends is ignored
        return ANONYMOUS

    def refuse_spent(self, caller: Caller) -> None:
        """Does nothing: there are no budgets."""

    def record(  # noqa: PLR0913 - each is counted
        self, caller: Caller, *, model: str, num_inputs: int, num_tokens: int, num_cached_tokens: int, num_requests: int = 1
    ) -> None:
        """Does nothing: usage is kept by key."""

    def find_caller(self, public_id: str) -> Caller | None:
        return ANONYMOUS if public_id == ANONYMOUS.public_id else None

    def require_keys(self) -> NoReturn:
        raise ConfigurationError("auth.mode is 'none': there are no keys")

    async def close(self) -> None:
        """Does nothing: nothing is open."""
