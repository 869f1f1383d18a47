"""Access for everybody, as one caller without limits of its own. Nothing of it is counted, and nothing kept."""

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
        """Nothing is read."""

    def warn(self, *, addresses: Sequence[ListenAddress]) -> None:
        if far := [str(address) for address in addresses if not address.is_local]:
            log.warning("authentication_is_off", host=", ".join(far), hint="EVERYBODY who reaches this address can use this server")

    async def authenticate(self, read_key: Callable[[], str]) -> Caller:  # noqa: ARG002 - whatever key a client sends is not looked at
        return ANONYMOUS

    def refuse_spent(self, caller: Caller) -> None:
        """Nobody has a budget."""

    def record(self, caller: Caller, *, model: str, num_inputs: int, num_tokens: int, num_cached_tokens: int) -> None:
        """Usage is kept by key."""

    def require_keys(self) -> NoReturn:
        raise ConfigurationError("auth.mode is 'none': there are no keys")

    async def close(self) -> None:
        """Nothing is open."""
