"""Errors of requests that may be valid: refused for now, failed by an upstream, or failed by the gateway itself."""

import math
from typing import Literal

from gateway.errors.client import field_of
from gateway.errors.gateway_error import GatewayError

LimitedKind = Literal["requests", "tokens"]  # what a key's limits count


class RateLimited(GatewayError):
    """A limit is reached. `limit` names it and the caller's state; `wait_seconds` is the exact time until there is room.

    Retry-After is `wait_seconds` in whole seconds, but at most MAX_RETRY_AFTER_SECONDS, as clients ignore more. A client that
    then comes back too early gets the rest of the wait in another 429.
    """

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, kind: LimitedKind, limit: str, *, wait_seconds: float, retry_after_ms: int | None = None) -> None:
        super().__init__(
            f"Rate limit reached on {limit}. Please try again in {duration(wait_seconds)}.",
            retry_after_seconds=math.ceil(wait_seconds),
        )
        self.type = kind
        self.retry_after_ms = retry_after_ms

    def headers(self) -> dict[str, str]:
        exact = {} if self.retry_after_ms is None else {"retry-after-ms": str(self.retry_after_ms)}
        return {**super().headers(), **exact}


def duration(seconds: float) -> str:
    """Formats seconds as Go does, rounded up to milliseconds: 12ms, 1.5s, 6m0s, 1h0m0s."""
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if milliseconds == 0:
        return "0s"
    if milliseconds < 1000:  # noqa: PLR2004 - a second
        return f"{milliseconds}ms"
    whole, rest = divmod(milliseconds, 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    shown = f"{whole}.{rest:03}".rstrip("0") if rest else str(whole)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{shown}s"


class Unavailable(GatewayError):
    status = 503

    def __init__(self, message: str, *, retry_after_seconds: float = 1) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class ModelLoading(Unavailable):
    code = "model_loading"

    def __init__(self, name: str) -> None:
        super().__init__(f"The model `{name}` is still loading. Please try again shortly.", retry_after_seconds=2)


class ModelUnavailable(Unavailable):
    """The model could not be loaded, or its device fails. Other models are not affected."""

    code = "model_unavailable"

    def __init__(self, reason: str, *, retry_after_seconds: float = 30) -> None:
        super().__init__(f"This model has failed. {reason}", retry_after_seconds=retry_after_seconds)


class StoreUnavailable(Unavailable):
    code = "store_unavailable"

    def __init__(self) -> None:
        super().__init__("The server cannot check API keys at the moment. Please try again shortly.", retry_after_seconds=5)


class LimiterUnavailable(Unavailable):
    code = "limiter_unavailable"

    def __init__(self) -> None:
        super().__init__("The server cannot check your limits at the moment. Please try again shortly.", retry_after_seconds=2)


class StorageUnavailable(Unavailable):
    """The storage of files, or the table of files, fails or is full. The log says why."""

    code = "storage_unavailable"

    def __init__(self, *, is_full: bool = False) -> None:
        super().__init__(
            "The server has no room for files at the moment."
            if is_full
            else "The server cannot store or read files at the moment. Please try again shortly.",
            retry_after_seconds=30 if is_full else 5,
        )
        self.is_full = is_full


class Overloaded(Unavailable):
    code = "server_overloaded"

    def __init__(self, reason: str = "Please try again shortly.", *, retry_after_seconds: float = 1) -> None:
        super().__init__(f"The server is currently overloaded. {reason}", retry_after_seconds=retry_after_seconds)


class EngineUnavailable(Unavailable):
    """The engine process of this gateway has ended, and is being started again."""

    code = "engine_unavailable"

    def __init__(self) -> None:
        super().__init__("The server is restarting its engine. Please try again shortly.", retry_after_seconds=2)


class DeadlinePassed(Unavailable):
    code = "timeout"

    def __init__(self, *, retry_after_seconds: float = 1) -> None:
        super().__init__("Your request waited longer than the server allows.", retry_after_seconds=retry_after_seconds)


class UpstreamUnavailable(Unavailable):
    code = "upstream_unavailable"

    def __init__(self, name: str, reason: str, *, retry_after_seconds: float = 1) -> None:
        super().__init__(f"The upstream of the model `{name}` {reason}.", retry_after_seconds=retry_after_seconds)


class UpstreamError(GatewayError):
    """Another server failed. `may_help`: the same request may succeed later."""

    status = 502
    code = "upstream_error"
    should_retry = False

    def __init__(self, name: str, reason: str, *, may_help: bool = False) -> None:
        super().__init__(f"The upstream of the model `{name}` {reason}.", retry_after_seconds=1 if may_help else None)
        self.may_help = may_help

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "x-should-retry": str(self.may_help).lower()}


class Unembeddable(GatewayError):
    code = "unembeddable_input"
    should_retry = False

    def __init__(
        self, where: str, reason: str = "it gave a vector with values that are not numbers", *, is_of_server: bool = False
    ) -> None:
        """`is_of_server`: a server refuses the input for its own reasons; another server with the same model may accept it."""
        super().__init__(f"The model cannot embed '{where}': {reason}.", param=field_of(where))
        self.where = where
        self.reason = reason
        self.is_of_server = is_of_server


class InternalError(GatewayError):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"The server had an error while processing your request. (Request ID: {request_id})")
