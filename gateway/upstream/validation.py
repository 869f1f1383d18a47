"""Validates an upstream's reply: turns it into an array that can be trusted, or raises InvalidResponse. Its text is never quoted.

A reply must have as many vectors as texts, each once if they are numbered, all of the expected dimensions, and in base64 a whole
number of float32. No value may be infinite or NaN, and no vector all zeros, which has no direction. Of a reranker each text has one
score, and if they are sorted, each with its number.
"""

import json
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.upstream import scores

Parsed = TypeVar("Parsed")
FLOAT32_BYTES = 4
MIN_LENGTH = 1e-12  # below it a vector is zero: torch's own floor in `normalize`


class InvalidResponse(Exception):
    """The reply is not what was asked for. This message is ours and may go to a client."""


class OtherDimensions(InvalidResponse):
    """The vectors are whole, but have other dimensions than those known: they are another model's."""


class UnexpectedScore(InvalidResponse):
    """A score is no probability, as all before it were: they must have been logits too."""


class NotANumber(Exception):
    """The vector at `position` is unusable: values are not numbers, or it is missing, or (`is_zero`) it has only zeros."""

    def __init__(self, position: int, *, is_zero: bool = False) -> None:
        super().__init__(position)
        self.position = position
        self.is_zero = is_zero


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """`vectors` are in the order of the reply, each as float32 bytes or as numbers, with None for what is not a number.

    `order[i]` is the index of vector i, None if the reply does not number them. `num_tokens` is the reply's own count, if any.
    """

    vectors: list[Any]
    order: list[int | None] | None = None
    num_tokens: int | None = None


def parse(content: bytes, decoder: "msgspec.json.Decoder[Parsed]", loosely: type[Parsed]) -> Parsed:
    """Decodes JSON. Reads NaN and Infinity, which Python servers write into it, as null. Raises InvalidResponse."""
    try:
        return decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if b"NaN" not in content and b"Infinity" not in content:
            raise InvalidResponse("its reply is not what this protocol says") from None
    try:
        return msgspec.convert(json.loads(content, parse_constant=lambda _: None), loosely)
    except (ValueError, RecursionError):
        raise InvalidResponse("its reply is not what this protocol says") from None


def array(reading: ParsedResponse, num_texts: int, dimensions: int | None) -> NDArray[np.float32]:
    """Builds the array of a reply. If `dimensions` is None, accepts those that the reply has.

    Returns shape (num_texts, dimensions), dtype float32, in the order of the texts. Raises InvalidResponse, or NotANumber with the
    text's position.
    """
    vectors = _in_order(reading, num_texts, "vectors")
    rows = [row_of(vector, position) for position, vector in enumerate(vectors)]
    found = len(rows[0])
    if any(len(row) != found for row in rows):
        raise InvalidResponse("its vectors have different dimensions")
    if dimensions is not None and found != dimensions:
        raise OtherDimensions(f"its vectors have {found} dimensions and not {dimensions}")
    stacked = rows[0].reshape(1, -1) if num_texts == 1 else np.stack(rows)
    is_finite = np.isfinite(stacked)
    if not is_finite.all():
        raise NotANumber(int(np.flatnonzero(~is_finite.all(axis=1))[0]))
    is_zero = np.linalg.norm(stacked.astype(np.float64), axis=1) < MIN_LENGTH
    if is_zero.any():
        raise NotANumber(int(np.flatnonzero(is_zero)[0]), is_zero=True)
    return stacked


def score_column(reading: ParsedResponse, num_texts: int, *, are_probabilities: bool) -> NDArray[np.float32]:
    """Builds the array of a reranker's reply, whose `vectors` are numbers. Probabilities become logits.

    Returns shape (num_texts, 1), dtype float32, in the order of the texts. Raises InvalidResponse, or NotANumber with the text's
    position.
    """
    if num_texts > 1 and reading.order is not None and all(place is None for place in reading.order):
        raise InvalidResponse("its scores are not numbered")  # most servers sort them
    column = _in_order(reading, num_texts, "scores")
    if None in column:
        raise NotANumber(column.index(None))
    found = np.array(column, dtype=np.float64).reshape(-1, 1)
    if are_probabilities:
        if not scores.are_probabilities(found):
            raise UnexpectedScore("it gave a score outside 0 to 1, and its first ones lay within")
        found = scores.logits_of(found)
    with np.errstate(over="ignore"):
        logits = found.astype(np.float32)
    if not (is_finite := np.isfinite(logits)).all():
        raise NotANumber(int(np.argmin(is_finite)))
    return logits


def _in_order(reading: ParsedResponse, num_texts: int, what: str) -> list[Any]:
    vectors, order = reading.vectors, reading.order
    if len(vectors) != num_texts:
        raise InvalidResponse(f"it gave {len(vectors)} {what} for {num_texts} texts")
    if order is None or all(place is None for place in order):
        return vectors
    if order.count(None) == 1 and 0 not in order:  # protobuf's JSON leaves out what is 0
        order = [place or 0 for place in order]
    placed: list[Any] = [None] * num_texts
    is_placed = [False] * num_texts
    for place, vector in zip(order, vectors, strict=True):
        if place is None or not 0 <= place < num_texts or is_placed[place]:
            raise InvalidResponse(f"its {what} are numbered wrongly")
        placed[place], is_placed[place] = vector, True
    return placed


def row_of(vector: Any, position: int) -> NDArray[np.float32]:
    """Converts one vector, of at least one dimension."""
    if vector is None:
        raise NotANumber(position)
    if len(vector) == 0:
        raise InvalidResponse("it gave an empty vector")
    if isinstance(vector, bytes):
        if len(vector) % FLOAT32_BYTES:
            raise InvalidResponse("its base64 is not a whole number of float32")
        return np.frombuffer(vector, dtype="<f4")
    if None in vector:
        raise NotANumber(position)
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, which `array` refuses
        return np.array(vector, dtype=np.float32)
