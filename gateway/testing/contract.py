"""The contract of an embedder, checked in one call: for the tests of backends in other packages. It needs no pytest."""

import time
from collections.abc import Sequence

import numpy as np

from gateway.embedding.embedder import AnyEmbedder, Inputs, Vectors
from gateway.embedding.vectors import Float32

TEXTS = ("a short text", "another, with Größe, 你好 and 🙂", "a short text", "one " * 20)
WAIT_SECONDS = 60.0
MIN_COSINE = 0.999  # other rows of a batch may change the last bits of a row, as in matrix products


class ContractBroken(AssertionError):
    """An embedder breaks the contract; the message says how."""


async def check_embedder(embedder: AnyEmbedder, texts: Sequence[str] = TEXTS) -> None:
    """Starts an embedder, embeds `texts` together and alone, and closes it. The embedder must not be started yet.

    Raises ContractBroken at the first violation, and whatever the embedder itself raises.
    """
    await embedder.start()
    try:
        require(embedder.health().state == "ready", f"after start() health() says {embedder.health().state!r}, not 'ready'")
        dimensions = check_description(embedder)
        together = await embed(embedder, texts, dimensions)
        for at, text in enumerate(texts):
            alone = await embed(embedder, [text], dimensions)
            check_same(at, together.by_input()[at], alone.by_input()[0])
    finally:
        await embedder.close()


def check_same(at: int, together: Float32, alone: Float32) -> None:
    """Both are the rows of text `at`: one, or of a sparse or multi-vector encoder any number."""
    require(together.shape == alone.shape, f"text {at} has {len(alone)} rows alone, {len(together)} among others")
    lengths = np.linalg.norm(together) * np.linalg.norm(alone)
    cosine = float((together * alone).sum() / lengths) if lengths else 1.0
    require(cosine >= MIN_COSINE, f"text {at} has another vector alone than among others: their cosine is {cosine:.6f}")


def check_description(embedder: AnyEmbedder) -> int:
    """Checks the description. Returns its dimensions."""
    described = embedder.describe()
    require(described.dimensions > 0, f"describe().dimensions is {described.dimensions}")
    require(described.max_tokens > 0, f"describe().max_tokens is {described.max_tokens}")
    require(bool(described.fingerprint), "describe().fingerprint is empty: nobody could tell these vectors from others")
    require(described == embedder.describe(), "describe() says something else each time")
    return described.dimensions


async def embed(embedder: AnyEmbedder, texts: Sequence[str], dimensions: int) -> Vectors:
    inputs = Inputs(list(texts), is_array=True, caller="contract", deadline=time.monotonic() + WAIT_SECONDS)
    prepared = await embedder.prepare(inputs)
    require(prepared.inputs.texts == list(texts), "prepare() returns other inputs than it was given")
    require(len(prepared.token_counts) == len(texts), f"prepare() counts {len(prepared.token_counts)} of {len(texts)} inputs")
    require(len(prepared.is_long) == len(texts), f"prepare().is_long has {len(prepared.is_long)} of {len(texts)} inputs")
    require(min(prepared.token_counts) > 0, "an input of text has no token: nobody would be charged for it")
    vectors = await embedder.embed(prepared)
    if (width := embedder.describe().row_width) is not None:
        check_row_counts(vectors, len(texts), width)
    else:
        check_rows(vectors, (len(texts), dimensions))
    return vectors


def check_row_counts(vectors: Vectors, num_texts: int, width: int) -> None:
    """The rows of a model that gives a text any number of them."""
    counts = vectors.row_counts
    require(counts is not None and len(counts) == num_texts, f"row_counts are {counts}, where {num_texts} texts have rows")
    require(
        vectors.rows.shape == (sum(counts or ()), width),
        f"rows have the shape {vectors.rows.shape}, not {(sum(counts or ()), width)}",
    )
    require(vectors.rows.dtype == np.float32, f"rows are {vectors.rows.dtype}, not float32")
    require(bool(np.isfinite(vectors.rows).all()), "a row holds NaN or infinity: raise Unembeddable for an input without a vector")


def check_rows(vectors: Vectors, shape: tuple[int, int]) -> None:
    rows = vectors.rows
    require(rows.shape == shape, f"rows have the shape {rows.shape}, not {shape}")
    require(rows.dtype == np.float32, f"rows are {rows.dtype}, not float32")
    require(bool(np.isfinite(rows).all()), "a row holds NaN or infinity: raise Unembeddable for an input without a vector")
    lengths = np.linalg.norm(rows, axis=1)
    require(bool(np.allclose(lengths, 1, atol=1e-3)), f"rows have the lengths {lengths.round(4).tolist()}, not 1")


def require(is_kept: bool, broken: str) -> None:
    if not is_kept:
        raise ContractBroken(broken)
