"""How many of the ten nearest are kept by small vectors: of each query, beside an exact search over its float32 vectors.

Every ninth sentence of the corpus is a query, the others are documents. Vectors come over HTTP. int8 is searched by the dot product
of codes (uint8 less 128 is the same codes), binary by the Hamming distance; rescoring sorts its nearest 40 again.
"""

import base64
import http.client
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import Corpus
from benchmarks.program import HOST, KEY, MODEL
from benchmarks.server import Server

EVERY = 9
NEAREST, RESCORED = 10, 40
SHORT = 128  # dimensions
Rows = NDArray[Any]
TYPES = {"float": np.dtype("<f4"), "int8": np.dtype("i1"), "ubinary": np.dtype("u1")}


def recalls(server: Server, corpus: Corpus) -> dict[str, float]:
    """The shares by name, 0 to 1."""
    whole = {dtype: vectors(server, corpus, dtype) for dtype in TYPES}
    cut = {dtype: vectors(server, corpus, dtype, dimensions=SHORT) for dtype in ("float", "ubinary")}
    exact = scores(whole["float"])
    hamming = agreements(whole["ubinary"])
    codes = whole["int8"].astype(np.float32)
    queries = split(whole["float"])[0]
    return {
        "int8": kept(exact, scores(codes)),
        "binary": kept(exact, hamming),
        "binary_rescored": kept(exact, rescored(hamming, exact)),
        "binary_rescored_int8": kept(exact, rescored(hamming, queries @ split(codes)[1].T)),
        "float_short": kept(exact, scores(cut["float"])),
        "binary_short": kept(exact, agreements(cut["ubinary"])),
        "binary_short_rescored": kept(exact, rescored(agreements(cut["ubinary"]), exact)),
    }


def vectors(server: Server, corpus: Corpus, dtype: str, *, dimensions: int | None = None) -> Rows:
    """Those of all sentences, one row each. Raises RuntimeError for any reply but 200."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=300)
    rows: list[Rows] = []
    for texts in corpus.requests:
        asked = {"model": MODEL, "input": texts, "encoding_format": "base64", "output_dtype": dtype, "dimensions": dimensions}
        connection.request("POST", "/v1/embeddings", json.dumps(asked), {"Authorization": f"Bearer {KEY}"})
        reply = connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"the gateway answered {reply.status}: {content[:300]!r}")
        rows += [np.frombuffer(base64.b64decode(each["embedding"]), TYPES[dtype]) for each in json.loads(content)["data"]]
    return np.stack(rows)


def split(rows: Rows) -> tuple[Rows, Rows]:
    """Queries and documents."""
    is_query = np.arange(len(rows)) % EVERY == 0
    return rows[is_query], rows[~is_query]


def scores(rows: Rows) -> Rows:
    queries, documents = split(rows)
    return queries @ documents.T


def agreements(bits: Rows) -> Rows:
    """How many bits of each query and document agree, less those that do not: the order of Hamming's distance, reversed."""
    signs = np.unpackbits(bits, axis=1).astype(np.float32) * 2 - 1
    return scores(signs)


def nearest(found: Rows, number: int) -> Rows:
    return np.argsort(-found, axis=1, kind="stable")[:, :number]


def rescored(coarse: Rows, fine: Rows) -> Rows:
    """`fine` for the RESCORED nearest by `coarse`, and minus infinity for all others."""
    chosen = nearest(coarse, RESCORED)
    final = np.full_like(fine, -np.inf)
    np.put_along_axis(final, chosen, np.take_along_axis(fine, chosen, axis=1), axis=1)
    return final


def kept(exact: Rows, found: Rows) -> float:
    pairs = zip(nearest(exact, NEAREST), nearest(found, NEAREST), strict=True)
    return sum(len(set(true) & set(other)) for true, other in pairs) / (len(exact) * NEAREST)
