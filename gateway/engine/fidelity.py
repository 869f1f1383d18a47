"""Fidelity of an encoder: how near its rows are to those of sentence-transformers in float32, over texts of every kind.

An embedder's fidelity is its worst cosine. A reranker's is 1 less its worst difference of two logits a and b, the first one
CrossEncoder's: |a - b| / max(4, |a|). No score between 0 and 1 (the sigmoid of a logit) is further off than that, as the sigmoid's
slope is at most 1/4. Unlike a difference of such scores, it also sees an error among logits of -11, whose sigmoid is 0 either way.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from math import inf
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gateway.config import LimitSettings, Task
from gateway.embedding.embedder import Inputs, ModelKind
from gateway.engine.calibration import bound_of
from gateway.engine.encoder import Encoder, NetworkInfo, OutOfMemory, Window
from gateway.engine.pair_preprocessor import PairPreprocessor
from gateway.engine.pairs import Pair, pair_tokenizer
from gateway.engine.preprocessor import Preprocessor
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import OperatorError

# An encoder below it is not used. Reduced precision rounds; float32 does not, so an encoder further off computes something else.
MIN_COSINE = 0.999
# Eight bits round more: of what these mean for a search, `nearest_kept` of held-out texts tells more than the worst probe.
MIN_COSINE_INT8 = 0.95
MIN_COSINE_INT8_FAST = 0.9
MIN_COSINE_FLOAT32 = 0.99999
MIN_COSINES = {"float32": MIN_COSINE_FLOAT32, "int8": MIN_COSINE_INT8, "int8-fast": MIN_COSINE_INT8_FAST}
# The same of a reranker: no score may be off by more than 0.03, or 0.001 in float32. A misread input moves one further.
MIN_CLOSENESS = 0.97
MIN_CLOSENESS_FLOAT32 = 0.999
STEEP = 4.0  # logits up to this are compared by their difference, larger ones by the share of it
PROBE_SECONDS = 20.0  # for the reference. MiniLM takes one second; a model of 8,192 tokens may not finish the long probes
LONG_TOKENS = [256 << power for power in range(8)]  # lengths of long probes, up to the model's own limit
FAILURES = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, NotImplementedError)  # of a network's code
COMPANY = 4  # rows of a batch that mixes short and long
UNFAITHFUL = "unfaithful"  # the category of a model that no runtime here serves faithfully
PROOF_TEXT = "The capital of France is Paris."
PROOF_QUERY = "What is the capital of France?"

PROBES = (
    "a",
    "?",
    " ",
    "Hello, world",
    "The capital of France is Paris.",
    "How do I reset my password?",
    "An attention mask tells the network which positions are padding and must not be looked at.",
    "In 1969 two people walked on the moon while a third, Michael Collins, circled above them, alone on the far side.",
    "error: expected ';' before '}' token (line 42, column 7)",
    "def area(r: float) -> float:\n    return 3.14159 * r ** 2  # square units",
    "SELECT name, COUNT(*) FROM orders WHERE total >= 99.95 GROUP BY name ORDER BY 2 DESC;",
    '{"id": 7, "tags": ["red", "blue"], "price": 1.5e3, "ok": null}',
    "https://example.org/a/b?c=d&e=%20f#g",
    "3.14159265358979 -42 1e-9 0xDEADBEEF 1,000,000.00",
    "Die Größe des Gefäßes überrascht; naïve Façade, coöperate, žluťoučký kůň.",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку.",
    "Η γρήγορη αλεπού πηδά πάνω από τον σκύλο.",
    "敏捷的棕色狐狸跳过了懒狗。今天天气很好。",
    "素早い茶色の狐がのろまな犬を飛び越える。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول",
    "השועל החום המהיר קופץ מעל הכלב העצלן",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "🙂👍🏽🇫🇷 emoji 👩‍👩‍👧 and \u0000 odd \ufffd signs \u200b\u202e",
    "word " * 60,
    "Every sentence of a long document adds a little to its meaning, and the model must weigh them all. " * 12,
)

# For rerankers: each text is a query once and a document once.
PROBE_PAIRS = tuple((query, PROBES[(number * 7 + 3) % len(PROBES)]) for number, query in enumerate(PROBES))


@dataclass(slots=True)
class Expected:
    """The probes, and their vectors from sentence-transformers in float32. Each of `rows` has shape (dimensions,).

    The first `num_short` are the short texts; the others grow up to the model's limit, as far as time allowed.
    """

    windows: list[Window] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    num_short: int = 0
    kind: ModelKind = "embedder"

    @property
    def max_tokens(self) -> int:
        """The length of the longest probe."""
        return max(map(len, self.windows), default=0)

    def add(self, window: Window, row: NDArray[np.float32]) -> None:
        """Adds a probe, unless its vector is zero: that has no cosine. Such a text is refused as unembeddable when served."""
        if row.any() or self.kind == "reranker":
            self.windows.append(window)
            self.rows.append(row)


@dataclass(frozen=True, slots=True)
class Proof:
    """One short text and its vector, shape (dimensions,): a check that an encoder still computes what was measured.

    `bound` is that of all components of its vectors, as `gateway.engine.calibration` measured it; None for a model without vectors.
    """

    window: Window
    row: NDArray[np.float32]
    kind: ModelKind = "embedder"
    bound: float | None = None

    def holds(self, rows: NDArray[np.float32], precision: str) -> bool:
        """Whether `rows` is that one row, within the minimum fidelity of `precision`."""
        expected = self.row[None]
        return rows.shape == expected.shape and self.fidelity(rows) >= min_fidelity(precision, self.kind)

    def fidelity(self, rows: NDArray[np.float32]) -> float:
        """How near the one row of `rows`, shape (1, dimensions), is to the known one."""
        return float(fidelities(rows, self.row[None], self.kind)[0])


def proof_of(reference: Encoder, tokenizer: Tokenizer) -> Proof:
    """Computes the proof by `reference`, in float32."""
    network = reference.info.network
    window = proof_window(network, tokenizer)
    return Proof(window, reference.embed([window])[0], network.kind, bound_of(reference, tokenizer))


def proof_window(network: NetworkInfo, tokenizer: Tokenizer) -> Window:
    """PROOF_TEXT as the preprocessor cuts it. Raises OperatorError for a model that reads nothing but its special tokens."""
    preprocessor: Preprocessor | PairPreprocessor
    if network.kind == "reranker":
        preprocessor = PairPreprocessor(network, tokenizer, rule="end", limits=LimitSettings())
    else:
        preprocessor = Preprocessor(network, tokenizer, prompts={}, rule="end", limits=LimitSettings())
    window: Window = preprocessor.prepare(proof_inputs(network), threading.Event()).work.windows[0]
    return window


def proof_inputs(network: NetworkInfo) -> Inputs:
    """PROOF_TEXT, for a reranker with PROOF_QUERY, as the inputs of a request."""
    query = PROOF_QUERY if network.kind == "reranker" else None
    return Inputs([PROOF_TEXT], is_array=False, caller="", deadline=inf, normalize=False, query=query)


def min_fidelity(precision: str, kind: ModelKind = "embedder") -> float:
    """The least fidelity with which an encoder is used."""
    if kind == "reranker":
        return MIN_CLOSENESS_FLOAT32 if precision == "float32" else MIN_CLOSENESS
    return min_cosine(precision)


def min_cosine(precision: str) -> float:
    return MIN_COSINES.get(precision, MIN_COSINE)


def expected_of(reference: Encoder, tokenizer: Tokenizer, *, seconds: float = PROBE_SECONDS) -> Expected:
    """Runs the probes one at a time. A long one is run only if four times the last one's time is left: attention is quadratic.

    Raises OperatorError if the network fails on a probe: it is not made for texts of any length.
    """
    try:
        return probe(reference, tokenizer, seconds=seconds)
    except FAILURES as error:
        first = (str(error).splitlines() or [""])[0]
        raise OperatorError(f"the model cannot be run: {type(error).__name__}: {first}", category=UNFAITHFUL) from error


def probe(reference: Encoder, tokenizer: Tokenizer, *, seconds: float) -> Expected:
    expected = Expected(kind=reference.info.network.kind)
    deadline, took = time.monotonic() + seconds, 0.0
    for window in probe_windows(reference.info.network, tokenizer):
        expected.add(window, reference.embed([window])[0])
        expected.num_short = len(expected.windows)
        if time.monotonic() > deadline:
            return expected
    for window in long_windows(reference.info.network, tokenizer):
        started = time.monotonic()
        if started + 4 * took > deadline:
            break
        try:
            expected.add(window, reference.embed([window])[0])
        except (OutOfMemory, MemoryError):
            break
        took = time.monotonic() - started
    return expected


class Unfaithful(OperatorError):
    """No encoder of a model gives its vectors."""

    def __init__(self, folder: Path, reasons: Sequence[str]) -> None:
        super().__init__(f"the model in {folder} gives nothing to rely on: {'; '.join(reasons)}", category=UNFAITHFUL)


def judge(encoders: Sequence[Encoder], expected: Expected) -> tuple[float, str]:
    """Returns the worst fidelity of all encoders, and the reason why they are not faithful; "" if they are."""
    info = encoders[0].info
    name = f"{info.runtime} in {info.precision}"
    try:
        fidelity = min(worst_fidelity(encoder, expected) for encoder in encoders)
    except FAILURES as error:
        return -1.0, f"{name} cannot run it ({type(error).__name__})"
    if fidelity < min_fidelity(info.precision, expected.kind):
        return fidelity, f"{name} is not faithful, its worst {_measure_of(expected.kind)} is {fidelity:.5f}"
    return fidelity, ""


def _measure_of(kind: ModelKind) -> str:
    return "closeness of a score" if kind == "reranker" else "cosine"


def worst_fidelity(encoder: Encoder, expected: Expected) -> float:
    """The worst fidelity over the probes: alone, in batches of eight short ones, and each long one among short ones, mostly padded.

    Returns -1 if there is nothing to compare, rows have another shape, or the device runs out of memory on short probes.
    """
    worst = 1.0 if expected.windows else -1.0
    for batch in batches(expected):
        try:
            rows = encoder.embed([expected.windows[index] for index in batch])
        except (OutOfMemory, MemoryError):
            if max(batch) < expected.num_short:
                return -1.0
            continue  # when served, such a batch is halved, and a text too large for the device is refused
        others = np.stack([expected.rows[index] for index in batch])
        if rows.shape != others.shape:
            return -1.0
        worst = min(worst, float(fidelities(rows, others, expected.kind).min()))
    return worst


def batches(expected: Expected) -> Iterator[list[int]]:
    """The batches of probes to run, as lists of indices."""
    everything = range(len(expected.windows))
    short = everything[: expected.num_short]
    yield from ([index] for index in everything)
    yield from (list(short[start : start + 8]) for start in range(0, len(short), 8))
    by_length = sorted(short, key=lambda index: len(expected.windows[index]))
    for number, index in enumerate([*everything[expected.num_short :], *by_length[-1:]]):
        company = [*by_length[: COMPANY - 2], *by_length[number - 2 :][:1]]
        yield [*company[:1], index, *company[1:]]


def probe_windows(network: NetworkInfo, tokenizer: Tokenizer) -> list[Window]:
    """Each probe, cut to the model's maximum. A reranker's are pairs: each probe as a query, with another as the document."""
    if network.kind == "reranker":
        return [_pair_window(network, tokenizer, *pair) for pair in PROBE_PAIRS]
    room = network.max_tokens - tokenizer.num_special
    return with_prompts([ids[:room] for ids in _probe_ids(tokenizer)], network, tokenizer)


def long_windows(network: NetworkInfo, tokenizer: Tokenizer) -> list[Window]:
    """Windows of growing length up to the model's limit, filled with all probes one after another, repeated."""
    if network.kind == "reranker":
        return list(_long_pair_windows(network, tokenizer))
    room = network.max_tokens - tokenizer.num_special
    lengths = [length for length in LONG_TOKENS if length < room] + [room] * (room <= LONG_TOKENS[-1])
    ids = _probe_ids(tokenizer)
    if not any(ids):
        return []
    streams = [cycle(token for each in ids[number:] + ids[:number] for token in each) for number in range(len(lengths))]
    return with_prompts([list(islice(stream, length)) for stream, length in zip(streams, lengths, strict=True)], network, tokenizer)


def _pair_window(network: NetworkInfo, tokenizer: Tokenizer, query: str, document: str) -> Window:
    pairs = pair_tokenizer(network, tokenizer)
    [[pair]] = pairs.pairs(pairs.question(query, network.default_prompt), [document], threading.Event())
    return pairs.cut(pair, network.max_tokens)


def _long_pair_windows(network: NetworkInfo, tokenizer: Tokenizer) -> Iterator[Window]:
    """Pairs of PROOF_QUERY and documents of growing length."""
    pairs = pair_tokenizer(network, tokenizer)
    head = pairs.question(PROOF_QUERY, network.default_prompt).head
    room = network.max_tokens - len(head) - len(pairs.suffix)
    ids = _probe_ids(tokenizer)
    lengths = [length for length in LONG_TOKENS if length < room] + [room] * (0 < room <= LONG_TOKENS[-1])
    for number, length in enumerate(lengths):
        stream = cycle(token for each in ids[number:] + ids[:number] for token in each)
        yield Pair(head, list(islice(stream, length)), pairs.suffix).whole()


def _probe_ids(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.fast.encode(probe, add_special_tokens=False).ids for probe in PROBES]


def with_prompts(contents: list[list[int]], network: NetworkInfo, tokenizer: Tokenizer) -> list[Window]:
    """Windows of the token ids. Skips those without a token. Routes take turns.

    If the network leaves prompts out, the first third of every second window counts as its prompt.
    """
    whole = [ids for ids in map(tokenizer.with_special, contents) if ids]
    tasks: tuple[Task | Literal[""], ...] = ("", *network.tasks)
    return [
        Window(ids, len(ids) // 3 if network.leaves_prompt_out and number % 2 else 0, tasks[number % len(tasks)])
        for number, ids in enumerate(whole)
    ]


def fidelities(rows: NDArray[np.float32], others: NDArray[np.float32], kind: ModelKind) -> NDArray[np.float64]:
    """How near each row is to the reference's, `others`: its cosine, or the closeness of its score. Shape (n,)."""
    if kind == "reranker":
        return closeness(rows, others)
    found = cosines(rows, others)
    # A text may have no weight at all for a sparse encoder; then it has none for both.
    return np.where(rows.any(axis=1) | others.any(axis=1), found, 1.0) if kind == "sparse_encoder" else found


def closeness(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 less the difference of each logit to that of `others`, both of shape (n, 1). Shape (n,). -1 for NaN and infinity."""
    left, right = rows.astype(np.float64), others.astype(np.float64)
    with np.errstate(invalid="ignore"):
        values = 1 - (np.abs(left - right) / np.maximum(STEEP, np.abs(right))).max(axis=1)
    found: NDArray[np.float64] = np.where(np.isfinite(values), values, -1.0)
    return found


def cosines(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine of each pair of rows, shape (n,). NaN becomes -1, as no comparison would notice NaN."""
    left, right = rows.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: NDArray[np.float64] = np.nan_to_num((left * right).sum(axis=1) / lengths, nan=-1.0)
    return values
