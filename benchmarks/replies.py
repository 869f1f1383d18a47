"""Whether a server's vectors are those of `encode`: a fast wrong answer has no speed."""

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.program import KEY, MODEL
from benchmarks.server import Server

MIN_COSINE = 0.999

Vectors = NDArray[np.float32]  # a row a text


def keep_expected(vectors: Vectors, corpus_file: Path) -> None:
    """encode's own, of the corpus's first request, for the process that asks the servers."""
    np.save(corpus_file.with_suffix(".npy"), vectors)


def expected(corpus_file: Path) -> Vectors:
    vectors: Vectors = np.load(corpus_file.with_suffix(".npy"))
    return vectors


def worst_cosine(server: Server, texts: list[str], expected: Vectors) -> float:
    """Raises RuntimeError for a refusal, and for vectors that are others."""
    cosines = np.sum(unit(embedded(server, texts)) * unit(expected), axis=1)
    if not cosines.min() >= MIN_COSINE:
        raise RuntimeError(f"{server.program.name} gives other vectors than encode: the worst cosine is {cosines.min():.4f}")
    return float(cosines.min())


def embedded(server: Server, texts: list[str]) -> Vectors:
    """base64 is asked for; floats are taken from a server that knows no other form."""
    body = json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"}).encode()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/embeddings", body, headers), timeout=120) as reply:
            data = json.load(reply)["data"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{server.program.name} answered {error.code}: {error.read()[:300]!r}") from None
    return np.array([numbers(row["embedding"]) for row in sorted(data, key=lambda row: row["index"])], dtype=np.float32)


def numbers(embedding: str | list[float]) -> Vectors:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.array(embedding, dtype=np.float32)


def unit(vectors: Vectors) -> Vectors:
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled
