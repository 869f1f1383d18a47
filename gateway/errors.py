"""Every way a request can fail, told once.

    GatewayError
    ├── ClientError                   the request is wrong: sending it again changes nothing
    │   ├── InvalidJSON               400 invalid_json
    │   ├── MissingParameter          400 missing_required_parameter
    │   ├── InvalidType               400 invalid_type
    │   ├── InvalidValue              400 invalid_value
    │   ├── TooManyInputs             400 array_above_max_length
    │   ├── InputTooLong              400 context_length_exceeded
    │   ├── RequestTooLong            400 max_tokens_per_request
    │   ├── RequestExceedsLimit       400 request_exceeds_limit
    │   ├── MissingKey                401
    │   ├── KeyInQuery                401 api_key_in_query
    │   ├── InvalidKey                401 invalid_api_key
    │   ├── InsufficientPermissions   403 insufficient_permissions
    │   ├── UnknownKey                404 key_not_found
    │   ├── UnknownModel              404 model_not_found
    │   ├── UnknownURL                404 unknown_url
    │   ├── MethodNotAllowed          405 method_not_allowed
    │   ├── SlowRequest               408 request_timeout
    │   ├── BodyTooLarge              413 request_too_large
    │   ├── InsufficientQuota         429 insufficient_quota
    │   └── HeadersTooLarge           431 headers_too_large
    ├── RateLimited                   429 rate_limit_exceeded
    ├── Unavailable                   503: the same request may succeed later, and Retry-After says when
    │   ├── ModelLoading              model_loading
    │   ├── ModelUnavailable          model_unavailable
    │   ├── StoreUnavailable          store_unavailable
    │   ├── LimiterUnavailable        limiter_unavailable
    │   ├── Overloaded                server_overloaded
    │   ├── UpstreamUnavailable       upstream_unavailable
    │   └── DeadlinePassed            timeout
    ├── UpstreamError                 502 upstream_error
    ├── Unembeddable                  500 unembeddable_input
    └── InternalError                 500 internal_error
    ClientGone                        nobody is left to answer; never becomes a response
    OperatorError                     what whoever runs the gateway must mend: one line, exit code 2
    ├── ConfigurationError
    └── StoreAway                 the key store cannot be used now; later it may be

`message` is written for the client and holds nothing of our insides. `code` is what clients match, and what the metrics count.
The shape is OpenAI's: `{"error": {"message", "type", "param", "code"}}`.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

MAX_RETRY_AFTER_SECONDS = 59  # openai-node 7 and the AI SDK ignore 60 seconds and more
MAX_QUOTED_CHARS = 200  # of what a client sent, quoted back to it
MAX_NAMES = 10  # of models, in an error: 2,000 characters at most


class GatewayError(Exception):
    """A failure with the words, the status and the headers a client is answered with."""

    status: ClassVar[int] = 500
    type: str = "server_error"
    code: ClassVar[str | None] = "internal_error"
    should_retry: ClassVar[bool | None] = None
    num_wasted_tokens = num_wasted_bytes = 0  # counted, or unpacked, before it was raised: the caller's limit is charged for them

    def __init__(self, message: str, *, param: str | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def after(self, *, num_tokens: int = 0, num_bytes: int = 0) -> Self:
        """The same error, raised after so much work."""
        self.num_wasted_tokens, self.num_wasted_bytes = num_tokens, num_bytes
        return self

    @property
    def outcome(self) -> str:
        """The metric label: `code`, or a name of our own where the contract's code is null."""
        return self.code or "missing_api_key"

    def headers(self) -> dict[str, str]:
        headers = {}
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = str(min(max(1, round(self.retry_after_seconds)), MAX_RETRY_AFTER_SECONDS))
        if self.should_retry is not None:
            headers["x-should-retry"] = str(self.should_retry).lower()
        return headers


class ClientError(GatewayError):
    status = 400
    type = "invalid_request_error"


class InvalidJSON(ClientError):
    code = "invalid_json"

    def __init__(self, reason: str = "") -> None:
        super().__init__("We could not parse the JSON body of your request." + (f" ({reason})" if reason else ""))


class MissingParameter(ClientError):
    code = "missing_required_parameter"

    def __init__(self, param: str) -> None:
        super().__init__(f"Missing required parameter: '{param}'.", param=param)


class InvalidType(ClientError):
    code = "invalid_type"


class InvalidValue(ClientError):
    code = "invalid_value"


class TooManyInputs(ClientError):
    code = "array_above_max_length"

    def __init__(self, num_inputs: int | str, max_inputs: int) -> None:
        super().__init__(
            f"Invalid 'input': array length must be {max_inputs} or less. Your request has {num_inputs} inputs.",
            param="input",
        )


class InputTooLong(ClientError):
    code = "context_length_exceeded"

    def __init__(self, where: str, max_tokens: int) -> None:
        super().__init__(  # OpenAI's words, and those that cognee and pgai look for
            f"Invalid '{where}': maximum input length is {max_tokens} tokens. The maximum context length is {max_tokens} tokens.",
            param="input",
        )


class RequestTooLong(ClientError):
    type = "max_tokens_per_request"
    code = "max_tokens_per_request"

    def __init__(self, requested: str, max_tokens: int) -> None:
        super().__init__(f"Requested {requested} tokens, max {max_tokens} tokens per request")


class RequestExceedsLimit(ClientError):
    code = "request_exceeds_limit"

    def __init__(self, num_tokens: int, *, max_tokens: int, per_minute: int) -> None:
        super().__init__(
            f"This request can never fit your limit of {per_minute} tokens per minute: it has {num_tokens} tokens,"
            f" and at most {max_tokens} may come at once. Please send fewer inputs a request."
        )


class MissingKey(ClientError):
    status = 401
    code = None

    def __init__(self) -> None:
        super().__init__(
            "You didn't provide an API key. Send it in the Authorization header: 'Authorization: Bearer YOUR_KEY'"
            " (or in 'api-key' or 'x-api-key')."
        )


class KeyInQuery(ClientError):
    """URLs are kept by proxies, browsers and logs, and a key in one is no longer secret."""

    status = 401
    code = "api_key_in_query"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"API keys are not accepted in the URL (you sent '{name}'): send yours in the Authorization header,"
            " 'Authorization: Bearer YOUR_KEY' (or in 'api-key' or 'x-api-key'), and consider replacing it."
        )


class InvalidKey(ClientError):
    status = 401
    code = "invalid_api_key"


class InsufficientPermissions(ClientError):
    status = 403
    code = "insufficient_permissions"

    def __init__(self) -> None:
        super().__init__("Your API key does not have the admin scope, which this path needs.")


class UnknownKey(ClientError):
    """An admin asked for a key that the store does not have, or no longer in force."""

    status = 404
    code = "key_not_found"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"No key in force has the id `{public_id[:MAX_QUOTED_CHARS]}`.", param="id")


class UnknownModel(ClientError):
    status = 404
    code = "model_not_found"

    def __init__(self, name: str, *, usable: Sequence[str] = ()) -> None:
        shown = name if len(name) <= MAX_QUOTED_CHARS else name[:MAX_QUOTED_CHARS] + "…"
        there_are = f" You can use {names_in_prose(usable)}." if usable else ""
        super().__init__(f"The model `{shown}` does not exist or you do not have access to it.{there_are}", param="model")


def names_in_prose(names: Sequence[str]) -> str:
    """At most MAX_NAMES of them, and how many more there are."""
    shown = ", ".join(f"`{name}`" for name in names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES} more"


class UnknownURL(ClientError):
    status = 404
    code = "unknown_url"

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"Invalid URL ({method} {path[:MAX_QUOTED_CHARS]})")


class MethodNotAllowed(ClientError):
    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allow: str) -> None:
        super().__init__(f"Not allowed to {method} on {path[:MAX_QUOTED_CHARS]}.")
        self.allow = allow

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "Allow": self.allow}


class SlowRequest(ClientError):
    status = 408
    code = "request_timeout"

    def __init__(self, timeout_seconds: float, *, part: str = "body") -> None:
        super().__init__(f"The {part} of your request did not arrive within {timeout_seconds:g} seconds.")

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "Connection": "close"}  # or it could trickle on for ever


class BodyTooLarge(ClientError):
    status = 413
    code = "request_too_large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The body of your request is too large: at most {max_bytes} bytes are accepted.")


class InsufficientQuota(ClientError):
    """The key's token budget is spent. It is a 429 that no retry helps soon, so it has no Retry-After."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    should_retry = False

    def __init__(self, *, budget: int, period: str, renewed_at: str) -> None:
        super().__init__(
            f"You exceeded your current quota: {budget} tokens a {period}, which are renewed at {renewed_at}."
            " Ask whoever runs this server for more."
        )


class HeadersTooLarge(ClientError):
    status = 431
    code = "headers_too_large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The headers of your request are too large: at most {max_bytes} bytes are accepted.")


class RateLimited(GatewayError):
    """`limit` is what was reached, and where the caller stands; `wait_seconds` is when there is room again, exactly.

    Retry-After is that in whole seconds, but never more than clients obey; who comes back too early is told the rest.
    """

    status = 429
    code = "rate_limit_exceeded"

    def __init__(
        self, kind: Literal["requests", "tokens"], limit: str, *, wait_seconds: float, retry_after_ms: int | None = None
    ) -> None:
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
    """As Go writes one, rounded up to milliseconds: 12ms, 1.5s, 6m0s, 1h0m0s."""
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
    """A model that could not be loaded, or whose device fails: what other models do has no part in it."""

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


class Overloaded(Unavailable):
    code = "server_overloaded"

    def __init__(self, reason: str = "Please try again shortly.", *, retry_after_seconds: float = 1) -> None:
        super().__init__(f"The server is currently overloaded. {reason}", retry_after_seconds=retry_after_seconds)


class DeadlinePassed(Unavailable):
    code = "timeout"

    def __init__(self, *, retry_after_seconds: float = 1) -> None:
        super().__init__("Your request waited longer than the server allows.", retry_after_seconds=retry_after_seconds)


class UpstreamUnavailable(Unavailable):
    code = "upstream_unavailable"

    def __init__(self, name: str, reason: str, *, retry_after_seconds: float = 1) -> None:
        super().__init__(f"The upstream of the model `{name}` {reason}.", retry_after_seconds=retry_after_seconds)


class UpstreamError(GatewayError):
    """Another server could not do its part. `may_help` says that the same request may succeed later."""

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

    def __init__(self, where: str, reason: str = "it gave a vector with values that are not numbers") -> None:
        super().__init__(f"The model cannot embed '{where}': {reason}.", param="input")
        self.where = where
        self.reason = reason


class InternalError(GatewayError):
    def __init__(self, request_id: str) -> None:
        super().__init__(f"The server had an error while processing your request. (Request ID: {request_id})")


class ClientGone(Exception):
    """The client closed its connection before it was answered."""


class OperatorError(Exception):
    """Something whoever runs the gateway must mend. Its text is the one line they read.

    `category` is all that strangers are told of it, by `/readyz`: a word without paths, addresses or figures.
    """

    def __init__(self, message: str, *, category: str = "cannot_be_loaded") -> None:
        super().__init__(message)
        self.category = category


class ConfigurationError(OperatorError):
    """A setting that is unknown, of the wrong type, out of its range, or at odds with another."""


class StoreAway(OperatorError):
    """The key store gives no answer, or refuses us, now; the same may succeed later.

    `is_unsure` where a change was sent off and nobody said whether it was made.
    """

    def __init__(self, message: str, *, is_unsure: bool = False) -> None:
        super().__init__(message)
        self.is_unsure = is_unsure
