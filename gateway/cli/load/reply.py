"""Checks replies: a server that answers fast but wrongly has no throughput worth reporting."""

import base64
import binascii
import re
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

MAX_QUOTED_CHARS = 300
CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)


class EmbeddingRow(Struct):
    index: int
    embedding: str | list[float]


class Usage(Struct):
    prompt_tokens: Annotated[int, Meta(ge=0)] = 0


class Reply(Struct):
    """The fields that are checked; some servers send no usage."""

    data: list[EmbeddingRow]
    usage: Usage | None = None


class ListedModel(Struct):
    id: str


class ModelList(Struct):
    data: list[ListedModel]


class Refusal(Struct):
    """An error's code and its message, "" if it has none."""

    code: str
    message: str


class WrongReply(Exception):
    """A reply with status 200 and wrong contents. Its text is the kind of error that is counted."""


decoder = msgspec.json.Decoder(Reply)


def check_reply(content: bytes, *, num_inputs: int, encoding_format: str, dimensions: int | None) -> tuple[int, int]:
    """The dimensions of the reply's vectors, and its tokens. `dimensions` None accepts any, if all vectors have the same.

    Raises WrongReply.
    """
    try:
        reply = decoder.decode(content)
    except msgspec.ValidationError:
        raise WrongReply("unexpected_shape") from None
    except UNREADABLE:
        raise WrongReply("not_json") from None
    if len(reply.data) != num_inputs:
        raise WrongReply("wrong_count")
    if [row.index for row in reply.data] != list(range(num_inputs)):
        raise WrongReply("wrong_order")
    rows = [numbers(row.embedding, encoding_format) for row in reply.data]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths or (dimensions is not None and lengths != {dimensions}):
        raise WrongReply("wrong_length")
    if not np.isfinite(np.concatenate(rows)).all():
        raise WrongReply("not_finite")
    return lengths.pop(), reply.usage.prompt_tokens if reply.usage else 0


def numbers(embedding: str | list[float], encoding_format: str) -> np.ndarray:
    """The vector, of shape (dimensions,). base64 is little-endian float32 bytes. Raises WrongReply if it is not so encoded."""
    if isinstance(embedding, str) != (encoding_format == "base64"):
        raise WrongReply("wrong_encoding")
    if not isinstance(embedding, str):
        return np.array(embedding, dtype=np.float64)
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4")
    except (binascii.Error, ValueError):
        raise WrongReply("wrong_encoding") from None


def refusal(content: bytes) -> Refusal:
    """Parses an error body in OpenAI's shape, or in one of the shapes of compatible servers."""
    try:
        body = msgspec.json.decode(content)
    except UNREADABLE:
        return Refusal("", "")
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return Refusal("", one_line(str(error)))
    code = next((value for name in ("code", "type") if isinstance(value := error.get(name), str) and CODE.fullmatch(value)), "")
    return Refusal(code, one_line(str(error.get("message") or error.get("detail") or "")))


def one_line(text: str) -> str:
    """Foreign text made safe for a terminal: printable, on one line, at most MAX_QUOTED_CHARS long."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return printable if len(printable) <= MAX_QUOTED_CHARS else printable[:MAX_QUOTED_CHARS] + "…"


def first_model(content: bytes) -> str | None:
    """The name of the first listed model; None if there is none."""
    try:
        listed = msgspec.json.decode(content, type=ModelList).data
    except UNREADABLE:
        return None
    return listed[0].id if listed and listed[0].id.isprintable() else None
