"""The equivalence check of a group: probe texts prove that two members give the same vectors, or as rerankers the same scores.

Cosines say nothing of scores, which have one dimension. So logits are compared themselves, or probabilities where logits are too
large to matter: a server that gives probabilities rounds them.
"""

import time
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gateway.embedding.embedder import Description, Embedder, Inputs, WorkT
from gateway.embedding.fingerprint import PARTS, changes
from gateway.embedding.prompt import resolve_input_type
from gateway.embedding.sparse import dense_rows
from gateway.errors import OperatorError

MIN_COSINE = 0.99  # two precisions of one model are above 0.999, a neighbour of the same family far below
# Of two logits. Half precision moves one of 10 by 0.1; two models of one family are apart by more on some text.
MAX_LOGITS_APART, MAX_SHARE_APART, MAX_PROBABILITIES_APART = 0.2, 0.03, 1e-5
PROBE_SECONDS = 60.0
NUM_PARTS_CHARS = sum(PARTS.values())

# Short and long texts, in several scripts, code and numbers: they show differences of models, tokenizers, poolings and prompts.
PROBES = (
    "a",
    "Hello, world",
    "How do I reset my password?",
    "HOW DO I RESET MY PASSWORD?",
    "The river rose above its banks after a night of rain, and the road to the village was closed until noon.",
    "for (int i = 0; i < n; ++i) { total += prices[i] * 1.19; }",
    "3.14159 -42 1,000,000 0xDEADBEEF",
    "Die Größe des Gefäßes überrascht den Käufer.",
    "昨天晚上下了一整夜的雨。",
    "أين تقع أقرب محطة قطار؟",
)

QUERIES = ("How do I change my password?", "Why was the road to the village closed?")  # for rerankers; one text answers each

Rows = NDArray[np.float32]


async def probe_vectors(embedder: Embedder[WorkT], names: Iterable[str] = ()) -> Rows:
    """The probes' vectors, shape (n, dimensions), float32, of length 1: with the default prompt, then with each of `names`.

    Of a reranker their scores, for each of QUERIES.

    Raises as the embedder does, and InvalidValue if it lacks a prompt.
    """
    rows = [await _probed_with(embedder, None)]
    rows += [await _probed_with(embedder, resolve_input_type(name, embedder.describe())) for name in names]
    return np.concatenate(rows)


async def _probed_with(embedder: Embedder[WorkT], input_type: str | None) -> Rows:
    deadline = time.monotonic() + PROBE_SECONDS
    inputs = Inputs(list(PROBES), is_array=True, caller="group", deadline=deadline, input_type=input_type)
    about = embedder.describe()
    queries = QUERIES if about.kind == "reranker" else (None,)
    asked = [replace(inputs, query=query) for query in queries]
    return np.concatenate([dense_rows(await embedder.embed(await embedder.prepare(each)), about) for each in asked])


def check_equivalent(where: str, first: tuple[Description, Rows], other: tuple[Description, Rows]) -> None:
    """`where` names both for the operator. Raises OperatorError, with the figures, if `other` is not equivalent to `first`."""
    (about, rows), (other_about, other_rows) = first, other
    if about.kind != other_about.kind:
        raise differ(f"{where} differ: one is of the kind {about.kind}, the other of the kind {other_about.kind}")
    if about.dimensions != other_about.dimensions:
        raise differ(f"{where} differ: {about.dimensions} and {other_about.dimensions} dimensions")
    fingerprint, other_fingerprint = about.fingerprint, other_about.fingerprint
    if _is_digest(fingerprint) and _is_digest(other_fingerprint):
        # Runtime and precision may differ: the cosines show what they change.
        changed = [part for part in changes(fingerprint, other_fingerprint) if part != "runtime or precision"]
        if changed:
            raise differ(f"{where} differ in {' and '.join(changed)}: {fingerprint} and {other_fingerprint}")
    if about.kind == "reranker":
        _check_scores(where, rows, other_rows)
        return
    if about.kind == "sparse_encoder":  # a text may have no weight at all: that proves nothing, and refutes nothing
        has_weight = rows.any(axis=1) | other_rows.any(axis=1)
        rows, other_rows = rows[has_weight], other_rows[has_weight]
    worst = _worst_cosine(rows, other_rows)
    if worst < MIN_COSINE:
        raise differ(
            f"{where} do not give the same vectors: their worst cosine over {len(PROBES)} texts is {worst:.4f}, not {MIN_COSINE}"
        )


def _worst_cosine(rows: Rows, other_rows: Rows) -> float:
    """-1 if a row is not finite or is zero, and for another number of rows or none at all."""
    if rows.shape != other_rows.shape or not len(rows):
        return -1.0
    with np.errstate(invalid="ignore"):
        cosines = (rows * other_rows).sum(axis=1) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(other_rows, axis=1))
    return float(np.nan_to_num(cosines, nan=-1.0).min())


def _check_scores(where: str, rows: Rows, other_rows: Rows) -> None:
    logits, others = rows.astype(np.float64), other_rows.astype(np.float64)
    apart = np.abs(logits - others)
    is_near = apart <= MAX_LOGITS_APART + MAX_SHARE_APART * np.minimum(np.abs(logits), np.abs(others))
    is_same = is_near | (np.abs(_sigmoid(logits) - _sigmoid(others)) <= MAX_PROBABILITIES_APART)
    if not is_same.all():
        index = int(np.argmax(np.where(is_same, 0.0, apart)))
        raise differ(
            f"{where} do not give the same scores: of {apart.size} one's logit is {logits.flat[index]:.3f}"
            f" and the other's {others.flat[index]:.3f}"
        )


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -logits))
    return found


def _is_digest(fingerprint: str) -> bool:
    """Whether this fingerprint is a digest of the model's files.

    For a model on another server, whose files cannot be seen, it is made of addresses and names instead, and ends in "unknown".
    """
    parts, _, runtime = fingerprint.partition(".")
    if runtime.endswith("unknown"):
        return False
    return len(parts) == NUM_PARTS_CHARS and all(char in "0123456789abcdef" for char in parts)


def differ(message: str) -> OperatorError:
    return OperatorError(message, category="members_differ")
