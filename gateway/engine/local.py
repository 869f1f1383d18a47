"""A model on this machine, as an Embedder: tokenise, cut into windows, queue, join."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from gateway.embedding.backend import Context
from gateway.embedding.embedder import Description, Health, Inputs, Prepared, Vectors
from gateway.embedding.fingerprint import Fingerprint, digest
from gateway.embedding.long_input import Rule, windows
from gateway.embedding.vectors import joined, normalized
from gateway.engine.batcher import Batcher
from gateway.engine.device import Device
from gateway.engine.encoder import Encoder
from gateway.engine.job import NotFinite, Work
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.weights import folder_of, sha256_of, weights_files
from gateway.errors import GatewayError, InputTooLong, OperatorError, Overloaded, RequestTooLong, Unembeddable
from gateway.log import get_logger

TOKENIZER_THREADS = 4  # so that a short query's tokenising does not wait behind three bulks'
JOIN_SECONDS = 10.0
WARMUP_LENGTHS = (8, 16, 32, 64, 128, 256)

log = get_logger()


class LocalSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    source: Annotated[str, Meta(min_length=1, description="A folder with the model's files, or its id on the Hugging Face hub.")]
    download: Annotated[bool, Meta(description="Whether files that are nowhere on this machine are fetched from the hub.")] = True
    runtime: Annotated[Literal["auto", "torch"], Meta(description="What the model runs on. torch is the only one so far.")] = "auto"
    device: Annotated[
        str,
        Meta(
            pattern=r"^(auto|cpu|cuda(:\d+)?)$",
            description='"auto" is the first CUDA device, or the CPU where there is none.',
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(description='"auto" is float16 on CUDA and float32 on a CPU.'),
    ] = "auto"
    long_input: Annotated[
        Rule,
        Meta(
            description="Texts longer than the model reads: embedded in windows and averaged (chunk), cut after the first (end), or"
            " refused (error). A request may choose otherwise."
        ),
    ] = "chunk"
    prompts: Annotated[
        dict[Literal["query", "document"], str],
        Meta(description="Put before a text whose request says input_type query or document. They replace the model's own."),
    ] = {}


@dataclass(frozen=True, slots=True)
class Windows:
    """Token ids ready for the device, and how many of them belong to each input."""

    token_ids: list[list[int]]
    counts: list[int]


class SentenceTransformers:
    """The backend of models that sentence-transformers can load."""

    name = "sentence-transformers"
    settings = LocalSettings

    def build(self, settings: LocalSettings, context: Context) -> "Local":
        return Local(settings, context)


def load_torch(folder: Path, settings: LocalSettings, threads: int) -> Encoder:
    from gateway.engine.torch_encoder import TorchEncoder  # noqa: PLC0415 - torch is imported where it is used

    return TorchEncoder(folder, device=settings.device, precision=settings.precision, threads=threads)


class Local:
    """An Embedder over one encoder. `load_encoder` turns the model's folder into it; tests put their own in its place."""

    def __init__(
        self,
        settings: LocalSettings,
        context: Context,
        load_encoder: Callable[[Path, LocalSettings, int], Encoder] = load_torch,
    ) -> None:
        self.settings = settings
        self.name = context.name
        self.limits = context.limits
        self.engine = context.engine
        self.metrics = context.metrics
        self.load_encoder = load_encoder
        self.state = Health("loading", f"{settings.source}: not started")
        self.pool = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix=f"tokenizer-{self.name}")
        self.device: Device | None = None

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self.load)
        except OperatorError as error:
            self.state = Health("failed", str(error))
            raise
        self.state = Health("ready")

    def load(self) -> None:
        folder = folder_of(self.settings.source, download=self.settings.download)
        encoder = self.load_encoder(folder, self.settings, self.engine.threads)
        self.info = encoder.info
        self.tokenizer = Tokenizer(self.info.tokenizer_json)
        self.window_tokens = self.info.max_tokens - self.tokenizer.num_special
        if self.window_tokens < 1:
            raise OperatorError(f"the model reads {self.info.max_tokens} tokens at once, which leaves none for a text")
        self.prompts: dict[str, str] = self.info.prompts | dict(self.settings.prompts)
        self.description = self.described(folder)
        warm_up(encoder, seconds=self.engine.warmup_seconds)
        self.batcher = Batcher(
            max_batch_tokens=self.engine.max_batch_tokens or self.info.default_max_batch_tokens,
            max_queue_tokens=self.engine.max_queue_tokens,
            metrics=self.metrics,
        )
        self.device = Device(encoder=encoder, batcher=self.batcher, metrics=self.metrics)
        self.device.start()

    def described(self, folder: Path) -> Description:
        weights = weights_files(folder)
        tokenizer_file = folder / "tokenizer.json"
        tokenizer = sha256_of(tokenizer_file) if tokenizer_file.is_file() else digest(self.info.tokenizer_json)
        module_files = [path for path in (folder / "modules.json", *sorted(folder.glob("*/config.json"))) if path.is_file()]
        rule = self.settings.long_input
        fingerprint = Fingerprint(
            weights=sha256_of(*weights),
            tokenizer=tokenizer,
            pooling=digest(*(msgspec.json.decode(path.read_bytes()) for path in module_files)),
            prompts=digest(self.prompts, self.info.default_prompt),
            long_input=digest(rule, self.info.max_tokens),
            runtime=f"{self.info.runtime}-{self.info.precision}",
        )
        return Description(
            backend=SentenceTransformers.name,
            source=self.settings.source,
            dimensions=self.info.dimensions,
            max_tokens=self.info.max_tokens,
            long_input=rule,
            fingerprint=str(fingerprint),
            runtime=self.info.runtime,
            device=self.info.device,
            precision=self.info.precision,
            created=int(weights[0].stat().st_mtime) if weights else 0,
        )

    async def prepare(self, inputs: Inputs) -> Prepared:
        started = time.perf_counter()
        self.refuse_too_many_characters(inputs)
        abandoned = threading.Event()
        try:
            prepared = await asyncio.get_running_loop().run_in_executor(self.pool, self.tokenised, inputs, abandoned)
        finally:
            abandoned.set()  # a client that left needs no more tokens
        prepared.stages["tokenize"] = time.perf_counter() - started
        return prepared

    def refuse_too_many_characters(self, inputs: Inputs) -> None:
        """Texts that cannot fit are refused before any time is spent on them."""
        max_chars = self.tokenizer.max_token_chars
        longest = max(range(len(inputs.texts)), key=lambda index: len(inputs.texts[index]))
        if len(inputs.texts[longest]) > self.limits.max_input_tokens * max_chars:
            raise InputTooLong(inputs.where(longest), self.limits.max_input_tokens)
        if sum(map(len, inputs.texts)) > self.limits.max_request_tokens * max_chars:
            raise RequestTooLong(f"more than {self.limits.max_request_tokens}", self.limits.max_request_tokens)

    def tokenised(self, inputs: Inputs, abandoned: threading.Event) -> Prepared:
        prompt = self.prompts.get(inputs.input_type, "") if inputs.input_type else self.info.default_prompt
        contents = self.tokenizer.content_ids([prompt + text for text in inputs.texts] if prompt else inputs.texts, abandoned)
        counts = [len(content) + self.tokenizer.num_special for content in contents]
        rule = inputs.long_input or self.settings.long_input
        is_long = [count > self.info.max_tokens for count in counts]
        for index, count in enumerate(counts):
            if is_long[index] and rule == "error":
                raise InputTooLong(inputs.where(index), self.info.max_tokens)
            if count > self.limits.max_input_tokens:
                raise InputTooLong(inputs.where(index), self.limits.max_input_tokens)
        if sum(counts) > self.limits.max_request_tokens:
            raise RequestTooLong(str(sum(counts)), self.limits.max_request_tokens)
        cuts = [windows(len(content), max_tokens=self.window_tokens, rule=rule) for content in contents]
        token_ids = [
            self.tokenizer.with_special(content[cut]) for content, slices in zip(contents, cuts, strict=True) for cut in slices
        ]
        return Prepared(inputs, counts, is_long, rule, work=Windows(token_ids, [len(slices) for slices in cuts]))

    async def embed(self, prepared: Prepared) -> Vectors:
        inputs, plan = prepared.inputs, prepared.work
        loop = asyncio.get_running_loop()
        work = Work(
            caller=inputs.caller,
            windows=plan.token_ids,
            rows=np.empty((len(plan.token_ids), self.info.dimensions), dtype=np.float32),
            loop=loop,
            done=loop.create_future(),
        )
        self.batcher.submit(work)
        try:
            await work.done
        except NotFinite as error:
            raise Unembeddable(inputs.where(input_of_window(plan.counts, error.position))) from None
        finally:
            self.batcher.forget(work)  # of a client that left; finished work is long out
        rows = joined(work.rows, counts=plan.counts, weights=[len(ids) - self.tokenizer.num_special for ids in plan.token_ids])
        if self.must_normalize(inputs, was_joined=len(plan.token_ids) > len(plan.counts)):
            rows = normalized(rows)
        return Vectors(rows, {"queue": work.queue_seconds, "compute": work.compute_seconds})

    def must_normalize(self, inputs: Inputs, *, was_joined: bool) -> bool:
        """A mean of unit vectors is shorter than 1; single windows of a normalising model already are of length 1."""
        return was_joined if self.info.is_normalized else inputs.normalize

    def describe(self) -> Description:
        return self.description

    def health(self) -> Health:
        if self.device is not None and self.device.failed:
            return Health("failed", f"{self.settings.source}: its device thread died too often")
        return self.state

    async def close(self) -> None:
        self.state = Health("failed", "closed")
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self.device is not None:
            self.batcher.close(closed())
            await asyncio.to_thread(self.device.join, JOIN_SECONDS)


def closed() -> GatewayError:
    return Overloaded("It is shutting down.", retry_after_seconds=1)


def warm_up(encoder: Encoder, *, seconds: float) -> None:
    """Runs common shapes once, shortest first, while there is time."""
    deadline = time.monotonic() + seconds
    for length in WARMUP_LENGTHS:
        if time.monotonic() < deadline and length <= encoder.info.max_tokens:
            encoder.embed([[0] * length])


def input_of_window(counts: list[int], position: int) -> int:
    """The index of the input that window `position` is cut from."""
    return int(np.searchsorted(np.cumsum(counts), position, side="right"))
