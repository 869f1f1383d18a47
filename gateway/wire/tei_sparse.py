"""text-embeddings-inference's /embed_sparse, weights of terms, and /embed_all, vectors of tokens. Source: its router of 1.9."""

from dataclasses import replace
from typing import Annotated

import numpy as np
import orjson
from msgspec import Meta, Struct
from numpy.typing import NDArray

from gateway.errors import InvalidValue
from gateway.wire import tei
from gateway.wire.request import EmbeddingsRequest


class SparseValue(Struct):
    """A term of the model's vocabulary and its weight, which is never 0."""

    index: Annotated[int, Meta(ge=0, description="The term's number in the model's own vocabulary.")]
    value: float


def decode(raw: bytes, *, path_model: str | None = None, default_model: str | None = None) -> EmbeddingsRequest:
    """Parses a body, which is that of /embed. Such rows are never normalised, and there is nothing to cut.

    Any bytes at all give a request or a ClientError.
    """
    asked = tei.decode_embed(raw, path_model=path_model, default_model=default_model).asked
    if asked.dimensions is not None:
        raise InvalidValue("`dimensions` is for vectors of a whole text, which can be cut.", param="dimensions")
    return replace(asked, normalize=False)


def encode_sparse(rows: list[NDArray[np.float32]]) -> bytes:
    """`[[{"index": …, "value": …}, …], …]`, a list for each text. Each of `rows` has pairs of a term and its weight, shape (k, 2).

    A weight is the shortest text that parses to the same float32. A list of SparseValue would take five times as long.
    """
    return b"[" + b",".join(map(_sparse_values, rows)) + b"]"


def _sparse_values(row: NDArray[np.float32]) -> bytes:
    if not len(row):
        return b"[]"
    weights = orjson.dumps(np.ascontiguousarray(row[:, 1]), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    pairs = zip(row[:, 0].astype(np.int64).tolist(), weights, strict=True)
    return b"[" + b",".join([b'{"index":%d,"value":%b}' % pair for pair in pairs]) + b"]"


def encode_token_vectors(rows: list[NDArray[np.float32]]) -> bytes:
    """`[[[…], …], …]`, a list of token vectors for each text. Each of `rows` has shape (tokens, dimensions)."""
    return orjson.dumps([np.ascontiguousarray(row) for row in rows], option=orjson.OPT_SERIALIZE_NUMPY)
