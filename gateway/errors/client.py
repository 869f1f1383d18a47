"""Errors that the request or its caller's rights cause: a retry changes nothing."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from gateway.errors.gateway_error import GatewayError

MAX_QUOTED_CHARS = 200  # of a client's text that an error message quotes
MAX_NAMES = 10  # of models that an error message lists: 2,000 characters at most


def _names_in_prose(names: Sequence[str]) -> str:
    """A list for a sentence: at most MAX_NAMES names, then the number of the others."""
    shown = ", ".join(f"`{name}`" for name in names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES} more"


def field_of(where: str) -> str:
    """The field of a place in the body: `documents` of `documents[3]`."""
    return where.partition("[")[0]


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

    def named(self, sent_as: Mapping[str, str]) -> "InvalidValue":
        """The same error about the field that the client sent, if it used another name: `sent_as` has it by ours."""
        ours = self.param or ""
        sent = sent_as.get(ours, ours)
        if sent == ours:
            return self
        message = self.message.replace(f"'{ours}'", f"'{sent}'", 1)
        return InvalidValue(message, param=sent).after(num_tokens=self.num_wasted_tokens, num_bytes=self.num_wasted_bytes)


class EmptyInput(InvalidValue):
    """A text without characters, or no text at all. Some protocols have a status of its own for it."""


class TooManyInputs(ClientError):
    code = "array_above_max_length"

    def __init__(self, num_inputs: int | str, max_inputs: int, *, param: str = "input") -> None:
        super().__init__(
            f"Invalid '{param}': array length must be {max_inputs} or less. Your request has {num_inputs} inputs.",
            param=param,
        )
        self.num_inputs, self.max_inputs = num_inputs, max_inputs


class InputTooLong(ClientError):
    code = "context_length_exceeded"

    def __init__(self, where: str, max_tokens: int, *, why: str = "") -> None:
        """`why` is a further sentence for the client."""
        super().__init__(  # both OpenAI's words and those that cognee and pgai match
            f"Invalid '{where}': maximum input length is {max_tokens} tokens. The maximum context length is {max_tokens} tokens."
            + (f" {why}" if why else ""),
            param=field_of(where),
        )
        self.max_tokens = max_tokens


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


class Unauthenticated(ClientError):
    """A 401 response. Its challenge names the scheme (RFC 9110, 15.5.2), and says if the key sent is wrong (RFC 6750, 3)."""

    status = 401
    challenge: ClassVar[str] = 'Bearer realm="embeddings gateway"'

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "WWW-Authenticate": self.challenge}


class MissingKey(Unauthenticated):
    code = None

    def __init__(self) -> None:
        super().__init__(
            "You didn't provide an API key. Send it in the Authorization header: 'Authorization: Bearer YOUR_KEY'"
            " (or in 'api-key' or 'x-api-key')."
        )


class KeyInQuery(Unauthenticated):
    """An API key in the URL. Proxies, browsers and logs keep URLs, so the key is no longer secret."""

    code = "api_key_in_query"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"API keys are not accepted in the URL (you sent '{name}'): send yours in the Authorization header,"
            " 'Authorization: Bearer YOUR_KEY' (or in 'api-key' or 'x-api-key'), and consider replacing it."
        )


class InvalidKey(Unauthenticated):
    code = "invalid_api_key"
    challenge = f'{Unauthenticated.challenge}, error="invalid_token"'


class InsufficientPermissions(ClientError):
    status = 403
    code = "insufficient_permissions"

    def __init__(self) -> None:
        super().__init__("Your API key does not have the admin scope, which this path needs.")


class UnknownKey(ClientError):
    """An admin named a key that the store does not have, or that is no longer in force."""

    status = 404
    code = "key_not_found"

    def __init__(self, public_id: str) -> None:
        super().__init__(f"No key in force has the id `{public_id[:MAX_QUOTED_CHARS]}`.", param="id")


class UnknownFile(ClientError):
    """There is no such file, it is over, or it is another key's: nobody learns which."""

    status = 404
    code = "file_not_found"

    def __init__(self, file_id: str, *, param: str = "id") -> None:
        super().__init__(f"No such File object: {file_id[:MAX_QUOTED_CHARS]}", param=param)


class StorageQuotaExceeded(ClientError):
    """The key's files have as many bytes together as they may."""

    code = "storage_quota_exceeded"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"Your files would have more than {max_bytes} bytes together, which is your storage quota: delete some first.",
            param="file",
        )


class UnknownBatch(ClientError):
    """There is no such batch, or it is another key's: nobody learns which."""

    status = 404
    code = "batch_not_found"

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"No batch found with id '{batch_id[:MAX_QUOTED_CHARS]}'.")


class BatchEnded(ClientError):
    """A batch that has ended cannot be cancelled. OpenAI's SDKs retry a 409 unless they are told not to."""

    status = 409
    code = "batch_ended"
    should_retry = False

    def __init__(self, batch_status: str) -> None:
        super().__init__(f"Cannot cancel a batch with status '{batch_status}'.")


class UnknownModel(ClientError):
    status = 404
    code = "model_not_found"

    def __init__(self, name: str | None, *, usable: Sequence[str] = ()) -> None:
        """`name` is None if none was asked for, and the key may use none."""
        shown = name if name is None or len(name) <= MAX_QUOTED_CHARS else name[:MAX_QUOTED_CHARS] + "…"
        about = "You can use no model." if name is None else f"The model `{shown}` does not exist or you do not have access to it."
        there_are = f" You can use {_names_in_prose(usable)}." if usable else ""
        self.name = shown
        super().__init__(f"{about}{there_are}", param="model")


class WrongModelKind(ClientError):
    """The model exists, and does something else: a reranker gives no vectors, an embedder no scores."""

    code = "wrong_model_kind"
    uses: ClassVar[Mapping[str, str]] = {
        "embedder": "gives vectors of texts: send it to /v1/embeddings",
        "reranker": "gives scores of a query and documents: send it to /v1/rerank",
        "sparse_encoder": "gives weights of words: send it to /embed_sparse",
        "multi_vector_encoder": "gives a vector for each token: send it to /embed_all",
    }

    def __init__(self, name: str, found: str, *, wanted: str) -> None:
        super().__init__(
            f"The model `{name}` is no {wanted.replace('_', ' ')}. It {self.uses.get(found, 'does something else')}.", param="model"
        )


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
        return {**super().headers(), "Connection": "close"}  # else the client could go on sending slowly, for ever


class BodyTooLarge(ClientError):
    status = 413
    code = "request_too_large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The body of your request is too large: at most {max_bytes} bytes are accepted.")


class FileTooLarge(ClientError):
    status = 413
    code = "file_too_large"

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"Invalid 'file': at most {max_bytes} bytes are accepted.", param="file")


class UnsupportedEncoding(ClientError):
    status = 415
    code = "unsupported_encoding"

    def __init__(self, *, is_gzip_read: bool = True) -> None:
        super().__init__(f"Unsupported Content-Encoding: send the body as it is{', or as gzip' if is_gzip_read else ''}.")
        self.is_gzip_read = is_gzip_read

    def headers(self) -> dict[str, str]:
        accepted = "gzip, identity" if self.is_gzip_read else "identity"
        return {**super().headers(), "Accept-Encoding": accepted}  # RFC 9110, 15.5.16


class UnsupportedMediaType(ClientError):
    """Only at the paths of servers that refuse other types: a form's body, which is what curl's -d says it is, for example."""

    status = 415
    code = "unsupported_media_type"

    def __init__(self) -> None:
        super().__init__("Expected request with `Content-Type: application/json`")


class InsufficientQuota(ClientError):
    """The key's token budget is spent. A retry does not help soon, so this 429 has no Retry-After."""

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
