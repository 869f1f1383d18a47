"""CORS: off unless configured. Unlike Litestar's own, it is on every response, including the errors that Edge answers."""

from collections.abc import Collection

from gateway.api.response_headers import READABLE
from gateway.server.headers import Headers, value_of

EVERY_ORIGIN = "*"
METHODS = b"GET, HEAD, POST, PATCH, OPTIONS"
EXPOSED = ", ".join(READABLE).encode()
MAX_AGE_SECONDS = b"600"


class Cors:
    """CORS headers for `origins`: whole origins, such as https://app.example, or "*" for all."""

    def __init__(self, origins: Collection[str]) -> None:
        self.allows_all = EVERY_ORIGIN in origins
        self.origins = frozenset(origin.encode() for origin in origins)

    def response_headers(self, request: Headers) -> Headers:
        """Returns the headers that let a page of the request's origin read the response."""
        origin = value_of(request, b"origin")
        if not self.origins or origin is None:
            return []
        if self.allows_all:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED)]
        allowed = [(b"access-control-allow-origin", origin)] if origin in self.origins else []
        return [*allowed, (b"access-control-expose-headers", EXPOSED), (b"vary", b"origin")]

    def preflight_headers(self, method: str, request: Headers) -> Headers | None:
        """Returns the headers of a preflight's response. All requested headers are allowed, because the SDKs send their own.

        Returns None if the request is not a preflight, or CORS is off.
        """
        is_preflight = method == "OPTIONS" and value_of(request, b"access-control-request-method") is not None
        if not is_preflight or not self.origins:
            return None
        asked = value_of(request, b"access-control-request-headers")
        return [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-max-age", MAX_AGE_SECONDS),
            *([(b"access-control-allow-headers", asked)] if asked else []),
        ]
