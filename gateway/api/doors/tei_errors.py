"""Errors as text-embeddings-inference 1.9 writes them: `{"error", "error_type"}`; plain text where its parser refuses a body.

Its statuses: Empty 400, Validation 422, Backend 424, Overloaded 429, Unhealthy 503. A 401, 404 and 405 keep theirs.
"""

from typing import Literal

import msgspec

from gateway.api.error_format import JSON, RenderedError
from gateway.errors import (
    BodyTooLarge,
    DeadlinePassed,
    EmptyInput,
    GatewayError,
    InputTooLong,
    InvalidJSON,
    InvalidType,
    MissingParameter,
    Overloaded,
    RateLimited,
    TooManyInputs,
    Unauthenticated,
    Unavailable,
    Unembeddable,
    UnsupportedEncoding,
    UnsupportedMediaType,
    UpstreamError,
    WrongModelKind,
)


class TEIError(msgspec.Struct):
    """The body of an error that TEI itself raises."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


TEXT = "text/plain; charset=utf-8"
EMPTY, VALIDATION, BACKEND, OVERLOADED, UNHEALTHY = 400, 422, 424, 429, 503
INVALID = 400  # a ClientError of this status is TEI's Validation

# What TEI's web framework answers by itself, in plain text: the status, and the words before ours.
PLAIN: dict[type[GatewayError], tuple[int, str]] = {
    InvalidJSON: (400, "Failed to parse the request body as JSON: "),
    InvalidType: (VALIDATION, "Failed to deserialize the JSON body into the target type: "),
    MissingParameter: (VALIDATION, "Failed to deserialize the JSON body into the target type: "),
    BodyTooLarge: (413, "Failed to buffer the request body: length limit exceeded. "),
    UnsupportedEncoding: (415, ""),
    UnsupportedMediaType: (415, ""),
}


def tei_error(error: GatewayError) -> RenderedError:
    """Renders an error as TEI does. A wrong key has no body there; ours says what is wrong, with the same status."""
    for kind, (status, words) in PLAIN.items():
        if isinstance(error, kind):
            return RenderedError(status, f"{words}{error.message}".encode(), TEXT)
    status, kind_name = _status_of(type(error))
    content = {"error": _words(error, kind_name), "error_type": kind_name}
    return RenderedError(status, msgspec.json.encode(content), JSON)


def tei_status(error: type[GatewayError]) -> int:
    """The status of errors of a class, for the description of the API."""
    return next((status for kind, (status, _) in PLAIN.items() if issubclass(error, kind)), _status_of(error)[0])


def _status_of(error: type[GatewayError]) -> tuple[int, str]:
    """The status and the `error_type`."""
    if issubclass(error, EmptyInput):
        return EMPTY, "Empty"
    if issubclass(error, WrongModelKind | Unembeddable | UpstreamError):
        return BACKEND, "Backend"
    if issubclass(error, Overloaded | DeadlinePassed | RateLimited):
        return OVERLOADED, "Overloaded"
    if issubclass(error, Unavailable):
        return UNHEALTHY, "Unhealthy"
    if issubclass(error, Unauthenticated) or error.status not in (INVALID, VALIDATION):
        return error.status, "Validation" if error.status < 500 else "Backend"  # noqa: PLR2004 - a server's own faults begin there
    return VALIDATION, "Validation"


def _words(error: GatewayError, kind: str) -> str:
    """TEI's words where clients match them, followed by ours."""
    if isinstance(error, TooManyInputs):
        return f"batch size {error.num_inputs} > maximum allowed batch size {error.max_inputs}"
    if isinstance(error, InputTooLong):
        return f"Input validation error: `inputs` must have less than {error.max_tokens} tokens. {error.message}"
    if isinstance(error, EmptyInput):
        return (
            f"`{error.param}` cannot be empty"
            if error.param in ("texts", "inputs.sentences")
            else f"Input validation error: `{error.param}` cannot be empty"
        )
    return {"Validation": "Input validation error: ", "Backend": "Backend error: "}.get(kind, "") + error.message
