"""The forms in which clients send the same texts, and the vectors back out of their replies."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.wire.token_ids import bytes_of_token

Body = dict[str, Any]
Vectors = NDArray[np.float32]
SHORTER = 128  # dimensions, of those who ask for fewer


@dataclass(frozen=True)
class Form:
    """How one client asks. `of_texts` makes its body; `max_texts` is what it sends at once."""

    client: str
    max_texts: int
    of_texts: Callable[[list[str]], Body]


def ids_of(text: str) -> list[int]:
    """cl100k ids that decode to the text: its bytes, a token each. What an encoder would choose are fewer, and the same text."""
    return [ID_OF_BYTE[byte] for byte in text.encode()]


ID_OF_BYTE = {token[0]: number for number, token in bytes_of_token().items() if len(token) == 1}
FORMS = (
    Form("openai-python", 32, lambda texts: {"input": texts, "encoding_format": "base64"}),
    Form("LangChain", 64, lambda texts: {"input": [ids_of(text) for text in texts], "encoding_format": "base64"}),
    Form("Vercel AI SDK", 8, lambda texts: {"input": texts, "encoding_format": "float", "dimensions": SHORTER, "user": "u"}),
    Form("LiteLLM", 8, lambda texts: {"input": texts, "encoding_format": None, "dimensions": None}),
    Form("curl", 1, lambda texts: {"input": texts[0]}),
    Form("a bulk", 512, lambda texts: {"input": texts, "encoding_format": "base64"}),
)


def vectors_in(reply: Body, num_texts: int) -> Vectors:
    """Of length 1, shape (n, d). Raises ValueError or KeyError for a reply that is not one."""
    rows = reply["data"]
    if [row["index"] for row in rows] != list(range(num_texts)):
        raise ValueError("the rows are not those that were asked for, in order")
    return np.stack([numbers(row["embedding"]) for row in rows])


def numbers(embedding: str | list[float]) -> Vectors:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.asarray(embedding, dtype=np.float32)


def worst_cosine(vectors: Vectors, expected: Vectors) -> float:
    """To the same first dimensions of what is true."""
    true = expected[:, : vectors.shape[1]]
    true = true / np.linalg.norm(true, axis=1, keepdims=True)
    return float(np.sum(vectors * true, axis=1).min())
