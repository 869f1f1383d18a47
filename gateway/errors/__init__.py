"""The errors of a request, each declared once: `client` has those that the request causes, `server` has the others.

    GatewayError
    ├── ClientError                   the request is wrong: a retry changes nothing
    │   ├── InvalidJSON               400 invalid_json
    │   ├── MissingParameter          400 missing_required_parameter
    │   ├── InvalidType               400 invalid_type
    │   ├── InvalidValue              400 invalid_value
    │   │   └── EmptyInput            400 invalid_value
    │   ├── TooManyInputs             400 array_above_max_length
    │   ├── InputTooLong              400 context_length_exceeded
    │   ├── RequestTooLong            400 max_tokens_per_request
    │   ├── RequestExceedsLimit       400 request_exceeds_limit
    │   ├── Unauthenticated           401: WWW-Authenticate has the challenge
    │   │   ├── MissingKey            401
    │   │   ├── KeyInQuery            401 api_key_in_query
    │   │   └── InvalidKey            401 invalid_api_key
    │   ├── StorageQuotaExceeded      400 storage_quota_exceeded
    │   ├── InsufficientPermissions   403 insufficient_permissions
    │   ├── UnknownKey                404 key_not_found
    │   ├── UnknownFile               404 file_not_found
    │   ├── UnknownBatch              404 batch_not_found
    │   ├── BatchEnded                409 batch_ended
    │   ├── UnknownModel              404 model_not_found
    │   ├── WrongModelKind            400 wrong_model_kind
    │   ├── UnknownURL                404 unknown_url
    │   ├── MethodNotAllowed          405 method_not_allowed
    │   ├── SlowRequest               408 request_timeout
    │   ├── BodyTooLarge              413 request_too_large
    │   ├── FileTooLarge              413 file_too_large
    │   ├── UnsupportedEncoding       415 unsupported_encoding
    │   ├── UnsupportedMediaType      415 unsupported_media_type
    │   ├── InsufficientQuota         429 insufficient_quota
    │   └── HeadersTooLarge           431 headers_too_large
    ├── RateLimited                   429 rate_limit_exceeded
    ├── Unavailable                   503: the same request may succeed later, and Retry-After says when
    │   ├── ModelLoading              model_loading
    │   ├── ModelUnavailable          model_unavailable
    │   ├── StoreUnavailable          store_unavailable
    │   ├── LimiterUnavailable        limiter_unavailable
    │   ├── StorageUnavailable        storage_unavailable
    │   ├── Overloaded                server_overloaded
    │   ├── UpstreamUnavailable       upstream_unavailable
    │   ├── EngineUnavailable         engine_unavailable
    │   └── DeadlinePassed            timeout
    ├── UpstreamError                 502 upstream_error
    ├── Unembeddable                  500 unembeddable_input
    └── InternalError                 500 internal_error
    ClientGone                        the client has left; never becomes a response
    OperatorError                     the operator must fix it: one line, exit code 2
    ├── ConfigurationError
    └── KeyStoreUnavailable                 the key store is unavailable; a retry may succeed

`message` is for the client and reveals no internals. Clients match `code`, and the metrics count it.
The body has the shape of its door: OpenAI's is `{"error": {"message", "type", "param", "code"}}`. No error knows of doors.
"""

from gateway.errors.client import (
    MAX_QUOTED_CHARS,
    BatchEnded,
    BodyTooLarge,
    ClientError,
    EmptyInput,
    FileTooLarge,
    HeadersTooLarge,
    InputTooLong,
    InsufficientPermissions,
    InsufficientQuota,
    InvalidJSON,
    InvalidKey,
    InvalidType,
    InvalidValue,
    KeyInQuery,
    MethodNotAllowed,
    MissingKey,
    MissingParameter,
    RequestExceedsLimit,
    RequestTooLong,
    SlowRequest,
    StorageQuotaExceeded,
    TooManyInputs,
    Unauthenticated,
    UnknownBatch,
    UnknownFile,
    UnknownKey,
    UnknownModel,
    UnknownURL,
    UnsupportedEncoding,
    UnsupportedMediaType,
    WrongModelKind,
)
from gateway.errors.gateway_error import (
    MAX_RETRY_AFTER_SECONDS,
    ClientGone,
    GatewayError,
)
from gateway.errors.operator import (
    ConfigurationError,
    KeyStoreUnavailable,
    OperatorError,
)
from gateway.errors.server import (
    DeadlinePassed,
    EngineUnavailable,
    InternalError,
    LimitedKind,
    LimiterUnavailable,
    ModelLoading,
    ModelUnavailable,
    Overloaded,
    RateLimited,
    StorageUnavailable,
    StoreUnavailable,
    Unavailable,
    Unembeddable,
    UpstreamError,
    UpstreamUnavailable,
    duration,
)

__all__ = [
    "MAX_QUOTED_CHARS",
    "MAX_RETRY_AFTER_SECONDS",
    "BatchEnded",
    "BodyTooLarge",
    "ClientError",
    "ClientGone",
    "ConfigurationError",
    "DeadlinePassed",
    "EmptyInput",
    "EngineUnavailable",
    "FileTooLarge",
    "GatewayError",
    "HeadersTooLarge",
    "InputTooLong",
    "InsufficientPermissions",
    "InsufficientQuota",
    "InternalError",
    "InvalidJSON",
    "InvalidKey",
    "InvalidType",
    "InvalidValue",
    "KeyInQuery",
    "KeyStoreUnavailable",
    "LimitedKind",
    "LimiterUnavailable",
    "MethodNotAllowed",
    "MissingKey",
    "MissingParameter",
    "ModelLoading",
    "ModelUnavailable",
    "OperatorError",
    "Overloaded",
    "RateLimited",
    "RequestExceedsLimit",
    "RequestTooLong",
    "SlowRequest",
    "StorageQuotaExceeded",
    "StorageUnavailable",
    "StoreUnavailable",
    "TooManyInputs",
    "Unauthenticated",
    "Unavailable",
    "Unembeddable",
    "UnknownBatch",
    "UnknownFile",
    "UnknownKey",
    "UnknownModel",
    "UnknownURL",
    "UnsupportedEncoding",
    "UnsupportedMediaType",
    "UpstreamError",
    "UpstreamUnavailable",
    "WrongModelKind",
    "duration",
]
