"""The lines of a batch's files: requests in, replies out. Source: OpenAI's OpenAPI 2.3.0, and what its API was seen to answer."""

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import MAX_QUOTED_CHARS, GatewayError
from gateway.wire.json_body import MENDED, decode_mended, without_byte_order_mark

POST = "POST"
REQUIRED = ("custom_id", "method", "url", "body")
REJECTED = "gateway.rejected"  # in a file that was converted: why a row is no request
ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A request of a batch: its line in the file, from 1, the client's own id, and the body as it stands.

    With a `reason` it is a row of another form that has no text: it fails alone.
    """

    line: int
    custom_id: str
    body: bytes
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class BadLine(Exception):
    """A line that is no request of this batch, in OpenAI's words."""

    code: str
    message: str
    param: str | None = None


class _Line(Struct):
    custom_id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    url: Raw | UnsetType = UNSET
    body: Raw | UnsetType = UNSET
    rejected: Raw | UnsetType = msgspec.field(default=UNSET, name=REJECTED)


class _BodyOutline(Struct):
    """What the rules of a whole file need to know of a body. Anything at all may stand in it: its request is then answered 400."""

    model: Any = None
    input: Any = None
    documents: Any = None


decoder = msgspec.json.Decoder(_Line)
outline_decoder = msgspec.json.Decoder(_BodyOutline)
string_decoder = msgspec.json.Decoder(str)
encoder = msgspec.json.Encoder()


def parse(content: bytes, line: int, endpoint: str) -> BatchRequest:
    """Parses one line. Raises BadLine."""
    found = _parse_json(content)
    if found.rejected is not UNSET:
        return _rejected(found, line)
    for name in REQUIRED:
        value = getattr(found, name)
        if value is UNSET or bytes(value) in {b"null", b'""'}:
            raise BadLine("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    custom_id = _text_of(found.custom_id, "custom_id")
    if MENDED in bytes(found.custom_id if found.custom_id is not UNSET else b"") and MENDED not in content:
        raise BadLine("invalid_value", "Invalid 'custom_id': it has half a surrogate pair, which no text has.", "custom_id")
    if _text_of(found.method, "method") != POST:
        raise BadLine("invalid_method", f"The method of this request is not supported. Supported values: '{POST}'.", "method")
    if _text_of(found.url, "url") != endpoint:
        raise BadLine("invalid_url", "The URL provided for this request does not match the batch endpoint.", "url")
    body = bytes(found.body) if found.body is not UNSET else b""
    if not body.startswith(b"{"):
        raise BadLine("invalid_type", "Invalid type for 'body': expected an object.", "body")
    return BatchRequest(line, custom_id, body)


def is_blank(content: bytes) -> bool:
    """Whether a line is no request: white space, behind a byte order mark or not."""
    return not content.strip() or not without_byte_order_mark(content).strip()


def _rejected(found: _Line, line: int) -> BatchRequest:
    reason = _text_of(found.rejected, REJECTED)
    if found.custom_id is UNSET:
        raise BadLine("invalid_row", f"This row cannot be read: {reason}.")
    return BatchRequest(line, _text_of(found.custom_id, "custom_id"), b"", reason)


def _parse_json(content: bytes) -> _Line:
    try:
        content.isascii() or content.decode()  # msgspec does not check what it passes over
        return decode_mended(without_byte_order_mark(content), _decode)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(error, msgspec.ValidationError):
            raise BadLine("invalid_json_line", "This line is not a JSON object.") from None
        raise BadLine("invalid_json_line", "This line is not parseable as valid JSON.") from None


def _decode(content: bytes) -> _Line:
    return decoder.decode(content)


def _text_of(value: Raw | UnsetType, name: str) -> str:
    try:
        return string_decoder.decode(value if value is not UNSET else b"null")
    except msgspec.DecodeError:
        raise BadLine("invalid_type", f"Invalid type for '{name}': expected a string.", name) from None


def outline(body: bytes) -> tuple[str | None, int]:
    """Returns the model that a body names, and the number of its texts. Any body has a number: at least 1."""
    try:
        found = outline_decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None, 1
    texts = found.input if found.documents is None else found.documents
    is_one = not isinstance(texts, list) or (bool(texts) and isinstance(texts[0], int))
    return found.model if isinstance(found.model, str) else None, 1 if is_one else max(1, len(texts))


def duplicate(custom_id: str) -> BadLine:
    return BadLine(
        "duplicate_custom_id",
        f"The custom_id '{custom_id[:MAX_QUOTED_CHARS]}' for this request is a duplicate of another request. The custom_id"
        " parameter must be unique for each request in a batch.",
        "custom_id",
    )


def other_model(model: str) -> BadLine:
    return BadLine(
        "mismatched_model",
        f"The model '{model[:MAX_QUOTED_CHARS]}' for this request does not match the rest of the batch. Each batch must contain"
        " requests for a single model.",
        "body.model",
    )


def request_id(batch_id: str, line: int) -> str:
    """The id of a request, the same however often it is computed."""
    return f"req_{_digest(b'request', batch_id, line)}"


def success(batch_id: str, request: BatchRequest, body: bytes) -> bytes:
    """The output line of a reply with status 200. `body` is its JSON."""
    return _line(batch_id, request, status=200, body=body)


def failure(batch_id: str, request: BatchRequest, error: GatewayError, body: bytes) -> bytes:
    """The output line of a request that was refused, or that failed. `body` is the error as its endpoint writes it."""
    return _line(batch_id, request, status=error.status, body=body)


def unanswered(batch_id: str, request: BatchRequest, *, code: str, message: str) -> bytes:
    """The output line of a request that was never made."""
    error = encoder.encode({"code": code, "message": message})
    return b"".join((_head(batch_id, request), b"null", b',"error":', error, b"}\n"))


def _line(batch_id: str, request: BatchRequest, *, status: int, body: bytes) -> bytes:
    about = b'{"status_code":%d,"request_id":"%s","body":' % (status, request_id(batch_id, request.line).encode())
    return b"".join((_head(batch_id, request), about, body, b'},"error":null}\n'))


def _head(batch_id: str, request: BatchRequest) -> bytes:
    own = _digest(b"line", batch_id, request.line).encode()
    return b'{"id":"batch_req_%s","custom_id":%s,"response":' % (own, encoder.encode(request.custom_id))


def _digest(what: bytes, batch_id: str, line: int) -> str:
    return hashlib.blake2b(b"%s %d" % (batch_id.encode(), line), digest_size=ID_BYTES, person=what).hexdigest()
