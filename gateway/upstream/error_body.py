"""What a server tells that refuses or fails. It is looked through, and never passed on: it may hold inputs."""

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_TOLD_BYTES = 64 * 1024  # an error of more is not looked at


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds, or a date, as RFC 9110, 10.2.3, has them. None where it says nothing we understand."""
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, flags=re.ASCII):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def read_error(content: bytes) -> str:
    """The message, code and type of an error in any of the forms the three protocols have; nothing where it is none.

    OpenAI nests them under `error`; Ollama and TEI have a text there; vLLM and TEI's /v1 have them on top; FastAPI says `detail`.
    """
    if len(content) > MAX_TOLD_BYTES:
        return ""
    try:
        reply = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    error = reply.get("error", reply) if isinstance(reply, dict) else None
    if isinstance(error, str):
        return error
    return " ".join(words_of(error)) if isinstance(error, dict) else ""


def words_of(error: dict[str, Any]) -> list[str]:
    detail = error.get("detail")
    parts = [each for each in detail if isinstance(each, dict)] if isinstance(detail, list) else []
    # FastAPI's `loc` names the field; its `input` repeats what was sent, and is left out.
    fields = [name for part in parts if isinstance(part.get("loc"), list) for name in part["loc"]]
    told = (error.get("message"), error.get("code"), error.get("type"), detail, *(part.get("msg") for part in parts), *fields)
    return [word for word in told if isinstance(word, str)]
