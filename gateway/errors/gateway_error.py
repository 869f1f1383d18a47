"""The base class of all request errors: message, status, code and headers of the response."""

from typing import ClassVar, Self

MAX_RETRY_AFTER_SECONDS = 59  # openai-node 7 and the AI SDK ignore 60 seconds and more


class GatewayError(Exception):
    """A failed request, with the message, status and headers of its response."""

    status: ClassVar[int] = 500
    type: str = "server_error"
    code: ClassVar[str | None] = "internal_error"
    should_retry: ClassVar[bool | None] = None
    num_wasted_tokens = num_wasted_bytes = 0  # counted, or decompressed, before the error: the caller's limit is charged for them

    def __init__(self, message: str, *, param: str | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def after(self, *, num_tokens: int = 0, num_bytes: int = 0) -> Self:
        """Records the work that was done before the error. Returns the same error."""
        self.num_wasted_tokens, self.num_wasted_bytes = num_tokens, num_bytes
        return self

    @property
    def outcome(self) -> str:
        """The metric's label: `code`, or a name of our own if the API's code is null."""
        return self.code or "missing_api_key"

    def headers(self) -> dict[str, str]:
        headers = {}
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = str(min(max(1, round(self.retry_after_seconds)), MAX_RETRY_AFTER_SECONDS))
        if self.should_retry is not None:
            headers["x-should-retry"] = str(self.should_retry).lower()
        return headers


class ClientGone(Exception):
    """The client closed its connection before it was answered."""
