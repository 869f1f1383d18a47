"""The equivalence check of a group: probe texts prove that two members give the same vectors."""

import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gateway.embedding.embedder import Description, Embedder, Inputs, WorkT
from gateway.embedding.fingerprint import PARTS, changes
from gateway.embedding.prompt import resolve_input_type
from gateway.errors import OperatorError

MIN_COSINE = 0.99  # two precisions of one model are above 0.999, a neighbour of the same family far below
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

Rows = NDArray[np.float32]


async def probe_vectors(embedder: Embedder[WorkT], names: Iterable[str] = ()) -> Rows:
    """The probes' vectors, shape (n, dimensions), float32, of length 1: with the default prompt, then with each of `names`.

    Raises as the embedder does, and InvalidValue if it lacks a prompt.
    """
    rows = [await _probed_with(embedder, None)]
    rows += [await _probed_with(embedder, resolve_input_type(name, embedder.describe())) for name in names]
    return np.concatenate(rows)


async def _probed_with(embedder: Embedder[WorkT], input_type: str | None) -> Rows:
    deadline = time.monotonic() + PROBE_SECONDS
    inputs = Inputs(list(PROBES), is_array=True, caller="group", deadline=deadline, input_type=input_type)
    return (await embedder.embed(await embedder.prepare(inputs))).rows


def check_equivalent(where: str, first: tuple[Description, Rows], other: tuple[Description, Rows]) -> None:
    """`where` names both for the operator. Raises OperatorError, with the figures, if `other` is not equivalent to `first`."""
    (about, rows), (other_about, other_rows) = first, other
    if about.dimensions != other_about.dimensions:
        raise differ(f"{where} differ: {about.dimensions} and {other_about.dimensions} dimensions")
    told, other_told = about.fingerprint, other_about.fingerprint
    if _is_digest(told) and _is_digest(other_told):
        # Runtime and precision may differ: the cosines show what they change.
        changed = [part for part in changes(told, other_told) if part != "runtime or precision"]
        if changed:
            raise differ(f"{where} differ in {' and '.join(changed)}: {told} and {other_told}")
    cosines = (rows * other_rows).sum(axis=1) / (np.linalg.norm(rows, axis=1) * np.linalg.norm(other_rows, axis=1))
    worst = float(np.nan_to_num(cosines, nan=-1.0).min())
    if worst < MIN_COSINE:
        raise differ(
            f"{where} do not give the same vectors: their worst cosine over {len(PROBES)} texts is {worst:.4f}, not {MIN_COSINE}"
        )


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
