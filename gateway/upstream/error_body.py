"""Parser of other servers' error replies. Their text is searched and never passed on: it may contain inputs."""

import email.utils
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

MAX_TOLD_BYTES = 64 * 1024  # a larger error is not read
MAX_PLAIN_BYTES = 2000  # read of an error that is not JSON
CODE_FIELDS = ("code", "type", "error_type")  # two of OpenAI's, and TEI's
CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Reads Retry-After, as seconds or a date (RFC 9110, 10.2.3). Returns None if it is neither."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, flags=re.ASCII):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """`words` are free text, to be searched and never passed on; `code` is structured, for log and message.

    `wait_seconds` is how long to wait before the next request.
    """

    words: str = ""
    code: str | None = None
    wait_seconds: float | None = None


def read_error(content: bytes, status: int = 0) -> ErrorReply:
    """Reads an error in any of the forms that servers use. Returns an empty ErrorReply if it has none of them.

    OpenAI nests it under `error`, and Gemini puts a list around that. Ollama and TEI have a text under `error`. vLLM and TEI's /v1
    have all fields on top. FastAPI says `detail`. A proxy sends HTML, which is ignored, or plain text.
    """
    if len(content) > MAX_TOLD_BYTES:
        return ErrorReply()
    try:
        reply = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorReply(_plain_words(content))
    if isinstance(reply, list) and reply:
        reply = reply[0]
    if isinstance(reply, str):
        return ErrorReply(reply)
    if not isinstance(reply, dict):
        return ErrorReply()
    inner = reply.get("error")
    levels = [inner, reply] if isinstance(inner, dict) else [reply]
    words = " ".join(word for level in levels for word in _words_of(level))
    code = next((code for level in levels for code in codes_of(level, status)), None)
    return ErrorReply(words, code, next((wait for level in levels for wait in _waits_of(level)), None))


def _plain_words(content: bytes) -> str:
    text = content[:MAX_PLAIN_BYTES].decode("utf-8", "replace").strip()
    return "" if text.startswith(("<", "{", "[")) else text


def _words_of(error: dict[str, Any]) -> list[str]:
    parts = _detail_of(error)
    # FastAPI's `loc` names the field; its `input` repeats what was sent, and is left out.
    fields = [name for part in parts if isinstance(part.get("loc"), list) for name in part["loc"]]
    told = [error.get(name) for name in ("message", "code", "type", "error", "error_type", "detail")]
    return [word for word in (*told, *(part.get("msg") for part in parts), *fields) if isinstance(word, str)]


def codes_of(error: dict[str, Any], status: int) -> Iterator[str]:
    """Yields its `code`, then its `type`, if they are structured: a number that repeats the status says nothing."""
    reasons = [part.get("reason") for part in _parts_of(error, "details")]  # google.rpc.ErrorInfo, more exact than `status`
    types = [part.get("type") for part in _detail_of(error)[:1]]
    for value in (*(error.get(name) for name in CODE_FIELDS), *reasons, error.get("status"), *types):
        shown = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if CODE.fullmatch(shown) and shown != str(status):
            yield shown


def _waits_of(error: dict[str, Any]) -> Iterator[float]:
    """Yields the delay of google.rpc.RetryInfo, which replaces Retry-After: a duration in protobuf's JSON form, "3.5s"."""
    for part in _parts_of(error, "details"):
        delay = part.get("retryDelay")
        if isinstance(delay, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?s", delay, flags=re.ASCII):
            yield float(delay.removesuffix("s"))


def _detail_of(error: dict[str, Any]) -> list[dict[str, Any]]:
    return _parts_of(error, "detail")


def _parts_of(error: dict[str, Any], name: str) -> list[dict[str, Any]]:
    parts = error.get(name)
    return [each for each in parts if isinstance(each, dict)] if isinstance(parts, list) else []
