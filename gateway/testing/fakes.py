"""The two fakes of the tests: an embedder, with its backend and encoder, and a clock. All other parts in tests are real."""

import asyncio
import hashlib
import re
import struct
import threading
from dataclasses import replace

import numpy as np
from msgspec import Struct

from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Description, Health, Inputs, Prepared, Vectors
from gateway.embedding.tokens import TokenizedText
from gateway.engine.encoder import EncoderInfo, NetworkInfo, OutOfMemory, Rows, Window
from gateway.errors import OperatorError, Unembeddable


class FakeClock:
    """A clock that moves only by `advance`. Called like `time.monotonic`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeEmbedder:
    """Embeds each text as a unit vector made of its hash; each word is a token. Implements the Embedder protocol.

    If `about` has another kind, a text has as many rows as `hashed_rows` gives it.
    """

    def __init__(
        self, *, dimensions: int = 8, fingerprint: str = "f" * 24 + ".fake-float32", fails_with: str | None = None
    ) -> None:
        self.dimensions = dimensions
        self.fingerprint = fingerprint
        self.fails_with = fails_with
        self.raises: Exception | None = None  # `embed` raises this
        self.gate: asyncio.Event | None = None  # `embed` waits for this before it answers
        self.is_waiting = asyncio.Event()
        self.poison: str | None = None  # a text that has no vector
        self.num_cancelled = 0
        self.num_embedded = 0
        self.state = Health("loading")
        self.prepared: list[Inputs] = []
        self.is_closed = False
        self.about: dict[str, object] = {}  # further fields of its description

    async def start(self) -> None:
        if self.fails_with is not None:
            self.state = Health("failed", self.fails_with)
            raise OperatorError(self.fails_with)
        self.state = Health("ready")

    async def prepare(self, inputs: Inputs) -> Prepared:
        self.prepared.append(inputs)
        counts = [len(text.split()) for text in inputs.texts]
        return Prepared(inputs, counts, [False] * len(counts), inputs.long_input or "chunk", stages={"tokenize": 0.0})

    async def tokenize(self, inputs: Inputs, *, add_special_tokens: bool) -> list[TokenizedText]:
        """A word's id is its length; [CLS], 0, stands before a text."""
        return [_tokenized(text, add_special_tokens=add_special_tokens) for text in inputs.texts]

    async def decode(self, inputs: Inputs, *, skip_special_tokens: bool) -> list[str]:
        """An id is so many "a"."""
        return [
            " ".join("a" * token_id for token_id in ids or [] if token_id or not skip_special_tokens)
            for ids in inputs.token_ids or []
        ]

    def row(self, inputs: Inputs, text: str) -> np.ndarray:
        return hashed(text, self.dimensions)

    async def embed(self, prepared: Prepared) -> Vectors:
        if self.raises is not None:
            raise self.raises
        if self.gate is not None:
            try:
                self.is_waiting.set()
                await self.gate.wait()
            except asyncio.CancelledError:
                self.num_cancelled += 1
                raise
        self.num_embedded += 1
        if self.poison in prepared.inputs.texts:
            raise Unembeddable(prepared.inputs.where(prepared.inputs.texts.index(self.poison)))
        texts, stages = prepared.inputs.texts, {"queue": 0.0, "compute": 0.0}
        if self.describe().row_width is not None:
            rows = [hashed_rows(text, self.describe()) for text in texts]
            return Vectors(np.concatenate(rows), stages, row_counts=list(map(len, rows)))
        return Vectors(np.stack([self.row(prepared.inputs, text) for text in texts]), stages)

    def describe(self) -> Description:
        return Description(
            backend="fake",
            source="fake",
            dimensions=self.dimensions,
            max_tokens=256,
            long_input="chunk",
            fingerprint=self.fingerprint,
            runtime="fake",
            device="cpu",
            precision="float32",
            created=1_700_000_000,
            **self.about,
        )

    def health(self) -> Health:
        return self.state

    async def close(self) -> None:
        self.is_closed = True


class FakeLocalEmbedder(FakeEmbedder):
    """A fake of a model on this machine: it takes `num_bytes`, and can be unloaded. Implements Unloadable.

    `planned_bytes` are what it is thought to take before; the same by default. Its loading waits for `start_gate`.
    """

    def __init__(self, num_bytes: int = 100, *, planned_bytes: int | None = None, **settings: object) -> None:
        super().__init__(**settings)
        self.about = {"num_bytes": num_bytes}
        self.planned_bytes = num_bytes if planned_bytes is None else planned_bytes
        self.start_gate = asyncio.Event()
        self.start_gate.set()
        self.is_starting = asyncio.Event()
        self.num_starts = self.num_unloads = self.num_plans = 0

    async def start(self) -> None:
        self.num_starts += 1
        self.is_starting.set()
        await self.start_gate.wait()
        await super().start()

    async def plan_load(self) -> int:
        self.num_plans += 1
        return self.planned_bytes

    async def unload(self) -> None:
        self.state = Health("loading", "unloaded")
        self.is_starting.clear()
        self.num_unloads += 1


class FakeReranker(FakeEmbedder):
    """Scores each text by a hash of the query and the text; each word of both is a token."""

    def __init__(self, **settings: object) -> None:
        super().__init__(dimensions=1, **settings)
        self.about = {"kind": "reranker"}
        self.long: set[str] = set()  # documents that are longer than it reads

    async def prepare(self, inputs: Inputs) -> Prepared:
        prepared = await super().prepare(inputs)
        num_of_query = len((inputs.query or "").split())
        counts = [num_of_query + len(self.read(inputs, text).split()) for text in inputs.texts]
        return replace(prepared, token_counts=counts, is_long=[text in self.long for text in inputs.texts])

    def row(self, inputs: Inputs, text: str) -> np.ndarray:
        return np.array([logit(inputs.query or "", self.read(inputs, text))])

    def read(self, inputs: Inputs, text: str) -> str:
        """The part of a document that is read."""
        return text if inputs.max_document_tokens is None else " ".join(text.split()[: inputs.max_document_tokens])


def logit(query: str, text: str) -> np.float32:
    """A number from -4 to 4, unique to the pair."""
    [number] = struct.unpack("<I", hashlib.shake_256(f"{query}\0{text}".encode()).digest(4))
    return np.float32(number / 2**29 - 4)


def _tokenized(text: str, *, add_special_tokens: bool) -> TokenizedText:
    words = list(re.finditer(r"\S+", text))
    ids, pieces = [len(word[0]) for word in words], [word[0] for word in words]
    special = 1 if add_special_tokens else 0
    return TokenizedText(
        text, [0] * special + ids, ["[CLS]"] * special + pieces, [(0, 0)] * special + [word.span() for word in words],
        [True] * special + [False] * len(words),
    )  # fmt: skip


def hashed(text: str, dimensions: int) -> np.ndarray:
    """A unit vector, float32, unique to `text`."""
    digest = hashlib.shake_256(text.encode()).digest(4 * dimensions)
    row = np.array(struct.unpack(f"<{dimensions}I", digest), dtype=np.float32) - np.float32(2**31)
    return row / np.linalg.norm(row)


def hashed_rows(text: str, about: Description) -> np.ndarray:
    """The rows of a text for a model of `about.kind`: a row a word, or of a sparse encoder a weight for each distinct length."""
    words = text.split()
    if about.kind == "sparse_encoder":
        return np.array([(length, length / 8) for length in sorted(set(map(len, words)))], dtype=np.float32).reshape(-1, 2)
    return np.stack([hashed(word, about.dimensions) for word in words])


class FakeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a row of the fake backend: none."""


class FakeBackend:
    """A backend whose `build` returns existing embedders, by the name of the row."""

    name = "fake"
    settings = FakeSettings

    def __init__(self, **embedders: FakeEmbedder) -> None:
        self.embedders = embedders

    def build(self, settings: FakeSettings, context: BackendContext) -> FakeEmbedder:
        return self.embedders[context.name]


class FakeEncoder:
    """A fake Encoder: a window's row is a hash of its token ids. It fails on chosen ids.

    `batches` are the windows' lengths of every batch that was tried.
    """

    def __init__(self, *, dimensions: int = 4, max_tokens: int = 16) -> None:
        self.info = EncoderInfo(
            network=NetworkInfo(dimensions=dimensions, max_tokens=max_tokens, is_normalized=True),
            tokenizer_json="",
            runtime="fake",
            device="cpu",
            precision="float32",
            default_max_batch_tokens=64,
        )
        self.batches: list[list[int]] = []
        self.fails_on: dict[int, BaseException] = {}
        self.nan_on: set[int] = set()
        self.room: int | None = None  # above this many tokens, padding included, it raises OutOfMemory
        self.meeting: threading.Barrier | None = None  # each batch waits here for those of other encoders

    def embed(self, windows: list[Window]) -> np.ndarray:
        self.batches.append([len(window) for window in windows])
        if self.meeting is not None:
            self.meeting.wait()
        if self.room is not None and len(windows) * max(map(len, windows)) > self.room:
            raise OutOfMemory
        for window in windows:
            for token_id in window.token_ids:
                if token_id in self.fails_on:
                    raise self.fails_on[token_id]
        rows = np.stack([hashed(str(window.token_ids), self.info.network.dimensions) for window in windows])
        rows[[bool(self.nan_on & set(window.token_ids)) for window in windows]] = np.nan
        return rows


class FakeAsyncEncoder(FakeEncoder):
    """An AsyncEncoder whose device computes once it `may_finish`; what it fails on fails at its launch or when it is waited for.

    `order` are the calls of both kinds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.info = replace(self.info, is_async=True)
        self.may_finish = threading.Event()
        self.may_finish.set()
        self.fails_at = "wait"
        self.order: list[str] = []

    @property
    def num_launched(self) -> int:
        return self.order.count("launch")

    def launch(self, windows: list[Window]) -> Rows:
        self.order.append("launch")
        rows = self.embed(windows) if self.fails_at == "launch" else None

        def wait() -> np.ndarray:
            self.may_finish.wait(10)
            self.order.append("wait")
            return self.embed(windows) if rows is None else rows

        return wait
