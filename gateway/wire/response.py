"""Vectors as the bytes of OpenAI's embeddings response. Source: OpenAI's OpenAPI 2.3.0."""

import base64

import numpy as np
import orjson
from numpy.typing import NDArray

from gateway.wire.request import EncodingFormat


def encode(vectors: NDArray[np.float32], *, model: str, encoding_format: EncodingFormat, num_tokens: int) -> bytes:
    """`vectors` has shape (n, dimensions) and dtype float32, in input order; `model` is the name as the client sent it.

    base64 is the raw little-endian float32 bytes; floats are the shortest text that gives the same float32 back.
    """
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    embeddings = [base64.b64encode(row).decode("ascii") for row in rows] if encoding_format == "base64" else rows
    return orjson.dumps(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": embedding} for index, embedding in enumerate(embeddings)],
            "model": model,
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
