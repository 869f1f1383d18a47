"""Fidelity of an encoder: its worst cosine, over texts of every kind, to sentence-transformers in float32 with each text alone."""

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
from gateway.embedding.embedder import Inputs
from gateway.engine.encoder import Encoder, NetworkInfo, OutOfMemory, Window
from gateway.engine.preprocessor import Preprocessor
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import OperatorError

# An encoder below it is not used. Reduced precision rounds; float32 does not, so an encoder further off computes something else.
MIN_COSINE = 0.999
MIN_COSINE_FLOAT32 = 0.99999
PROBE_SECONDS = 20.0  # for the reference. MiniLM takes one second; a model of 8,192 tokens may not finish the long probes
LONG_TOKENS = [256 << power for power in range(8)]  # lengths of long probes, up to the model's own limit
FAILURES = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, NotImplementedError)  # of a network's code
COMPANY = 4  # rows of a batch that mixes short and long
UNFAITHFUL = "unfaithful"  # the category of a model that no runtime here serves faithfully
PROOF_TEXT = "The capital of France is Paris."

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


@dataclass(slots=True)
class Expected:
    """The probes, and their vectors from sentence-transformers in float32. Each of `rows` has shape (dimensions,).

    The first `num_short` are the short texts; the others grow up to the model's limit, as far as time allowed.
    """

    windows: list[Window] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    num_short: int = 0

    @property
    def max_tokens(self) -> int:
        """The length of the longest probe."""
        return max(map(len, self.windows), default=0)

    def add(self, window: Window, row: NDArray[np.float32]) -> None:
        """Adds a probe, unless its vector is zero: that has no cosine. Such a text is refused as unembeddable when served."""
        if row.any():
            self.windows.append(window)
            self.rows.append(row)


@dataclass(frozen=True, slots=True)
class Proof:
    """One short text and its vector, shape (dimensions,): a check that an encoder still computes what was measured."""

    window: Window
    row: NDArray[np.float32]

    def holds(self, rows: NDArray[np.float32], precision: str) -> bool:
        """Whether `rows` is that one row, within the minimum cosine of `precision`."""
        expected = self.row[None]
        return rows.shape == expected.shape and bool(cosines(rows, expected)[0] >= min_cosine(precision))


def proof_of(reference: Encoder, tokenizer: Tokenizer) -> Proof:
    window = proof_window(reference.info.network, tokenizer)
    return Proof(window, reference.embed([window])[0])


def proof_window(network: NetworkInfo, tokenizer: Tokenizer) -> Window:
    """PROOF_TEXT as the preprocessor cuts it. Raises OperatorError for a model that reads nothing but its special tokens."""
    preprocessor = Preprocessor(network, tokenizer, prompts={}, rule="end", limits=LimitSettings())
    inputs = Inputs([PROOF_TEXT], is_array=False, caller="", deadline=inf)
    window: Window = preprocessor.prepare(inputs, threading.Event()).work.windows[0]
    return window


def min_cosine(precision: str) -> float:
    return MIN_COSINE_FLOAT32 if precision == "float32" else MIN_COSINE


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
    expected = Expected()
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
        super().__init__(f"the model in {folder} gives no vectors to rely on: {'; '.join(reasons)}", category=UNFAITHFUL)


def judge(encoders: Sequence[Encoder], expected: Expected) -> tuple[float, str]:
    """Returns the worst cosine of all encoders, and the reason why they are not faithful; "" if they are."""
    info = encoders[0].info
    name = f"{info.runtime} in {info.precision}"
    try:
        fidelity = min(worst_cosine(encoder, expected) for encoder in encoders)
    except FAILURES as error:
        return -1.0, f"{name} cannot run it ({type(error).__name__})"
    if fidelity < min_cosine(info.precision):
        return fidelity, f"{name} is not faithful, its worst cosine is {fidelity:.5f}"
    return fidelity, ""


def worst_cosine(encoder: Encoder, expected: Expected) -> float:
    """The worst cosine over the probes: alone, in batches of eight short ones, and each long one among short ones, mostly padded.

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
        worst = min(worst, float(cosines(rows, others).min()))
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
    """Each probe, cut to the model's maximum."""
    room = network.max_tokens - tokenizer.num_special
    return with_prompts([ids[:room] for ids in _probe_ids(tokenizer)], network, tokenizer)


def long_windows(network: NetworkInfo, tokenizer: Tokenizer) -> list[Window]:
    """Windows of growing length up to the model's limit, filled with all probes one after another, repeated."""
    room = network.max_tokens - tokenizer.num_special
    lengths = [length for length in LONG_TOKENS if length < room] + [room] * (room <= LONG_TOKENS[-1])
    ids = _probe_ids(tokenizer)
    if not any(ids):
        return []
    streams = [cycle(token for each in ids[number:] + ids[:number] for token in each) for number in range(len(lengths))]
    return with_prompts([list(islice(stream, length)) for stream, length in zip(streams, lengths, strict=True)], network, tokenizer)


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


def cosines(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine of each pair of rows, shape (n,). NaN becomes -1, as no comparison would notice NaN."""
    left, right = rows.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: NDArray[np.float64] = np.nan_to_num((left * right).sum(axis=1) / lengths, nan=-1.0)
    return values
