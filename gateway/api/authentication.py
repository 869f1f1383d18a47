"""Authentication by API key. Every route needs a key unless it is declared with `exclude_from_auth`."""

from collections.abc import Iterable
from functools import partial
from urllib.parse import unquote

from litestar.connection import ASGIConnection
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.types import ASGIApp, Scope

from gateway.access.access_control import AccessControl, RequestAccess
from gateway.access.keys.key import Caller
from gateway.api.request_log import record_of
from gateway.errors import GatewayError, InvalidKey, KeyInQuery, MissingKey
from gateway.metrics import Metrics

KEY_HEADERS = (b"api-key", b"x-api-key")
KEY_PARAMETERS = frozenset({"api-key", "api_key", "apikey", "key", "x-api-key", "access_token"})


class Authentication(AbstractAuthenticationMiddleware):
    """Litestar middleware: sets `request.user` to the Caller."""

    def __init__(self, app: ASGIApp, *, access: AccessControl, metrics: Metrics) -> None:
        super().__init__(app)
        self.access = access
        self.metrics = metrics

    async def authenticate_request(self, connection: ASGIConnection) -> AuthenticationResult:  # type: ignore[type-arg]
        return AuthenticationResult(user=await authenticate(connection.scope, self.access, self.metrics), auth=None)


async def authenticate(scope: Scope, access: RequestAccess, metrics: Metrics) -> Caller:
    """Returns the caller, and puts it into the request's record. Raises what `AccessControl.authenticate` and `read_key` raise."""
    try:
        caller = await access.authenticate(partial(read_key, scope))
    except GatewayError as error:
        metrics.access.auth_failures.labels(error.outcome).inc()
        raise
    record_of(scope).caller = caller.public_id
    return caller


def read_key(scope: Scope) -> str:
    """Returns the one key that a request presents.

    Raises KeyInQuery, MissingKey, and InvalidKey if its headers have different keys.
    """
    if name := _key_in_query(scope["query_string"]):
        raise KeyInQuery(name)
    keys = _presented_keys(scope["headers"])
    if not keys:
        raise MissingKey
    if len(keys) > 1:
        raise InvalidKey("Incorrect API key provided: this request carries different keys in its headers.")
    return keys.pop()


def _key_in_query(query: bytes) -> str | None:
    """Returns the name of a query parameter that other services take a key from, in any case, or None."""
    if not query:
        return None
    names = (part.partition("=")[0] for part in query.decode("latin-1").split("&"))
    return next((name for sent in names if (name := unquote(sent).lower()) in KEY_PARAMETERS), None)


def _presented_keys(headers: Iterable[tuple[bytes, bytes]]) -> set[str]:
    """Returns the distinct keys of `Authorization: Bearer` (the scheme in any case), `api-key` and `x-api-key`."""
    keys = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() == "bearer":
                keys.add(key.strip())
        elif name in KEY_HEADERS:
            keys.add(value.decode("latin-1").strip())
    return keys - {""}
