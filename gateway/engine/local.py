"""A model on this machine, as an Embedder: tokenise, cut into windows, queue, join."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct

from gateway.embedding.backend import Context
from gateway.embedding.embedder import Description, Health, Inputs, Prepared, Vectors
from gateway.embedding.fingerprint import Fingerprint, digest
from gateway.embedding.long_input import Rule, windows
from gateway.embedding.vectors import joined, normalized
from gateway.engine import runtime
from gateway.engine.artifact import Shelf
from gateway.engine.batcher import Batcher
from gateway.engine.device import Device
from gateway.engine.encoder import Encoder
from gateway.engine.job import NotFinite, Work
from gateway.engine.runtime import Loaded
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import GatewayError, InputTooLong, OperatorError, Overloaded, RequestTooLong, Unembeddable
from gateway.log import get_logger

TOKENIZER_THREADS = 4  # so that a short query's tokenising does not wait behind three bulks'
JOIN_SECONDS = 10.0
WARMUP_LENGTHS = (8, 16, 24, 32, 40, 48, 64, 96, 128, 256)

log = get_logger()


class LocalSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    source: Annotated[str, Meta(min_length=1, description="A folder with the model's files, or its id on the Hugging Face hub.")]
    download: Annotated[bool, Meta(description="Whether files that are nowhere on this machine are fetched from the hub.")] = True
    runtime: Annotated[
        Literal["auto", "openvino", "torch"],
        Meta(description='"auto" compiles the model with OpenVINO on a CPU, and runs it through torch on CUDA.'),
    ] = "auto"
    device: Annotated[
        str,
        Meta(
            pattern=r"^(auto|cpu|cuda(:\d+)?)$",
            description='"auto" is the first CUDA device, or the CPU where there is none.',
        ),
    ] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Meta(description='"auto" is bfloat16 on a CPU that has it, else float32; float16 on CUDA.'),
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


class Local:
    """An Embedder over the encoders of one model, a device thread each, all fed by one batcher."""

    def __init__(self, settings: LocalSettings, context: Context) -> None:
        self.settings = settings
        self.name = context.name
        self.limits = context.limits
        self.engine = context.engine
        self.metrics = context.metrics
        self.shelf = Shelf(context.data_dir / "models")
        self.state = Health("loading", f"{settings.source}: not started")
        self.pool = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix=f"tokenizer-{self.name}")
        self.devices: list[Device] = []

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self.load)
        except OperatorError as error:
            self.state = Health("failed", str(error))
            raise
        self.state = Health("ready")

    def load(self) -> None:
        loaded = runtime.load(self.name, self.settings, self.engine, self.shelf)
        self.info = loaded.encoders[0].info
        self.tokenizer = Tokenizer(self.info.tokenizer_json)
        self.window_tokens = self.info.max_tokens - self.tokenizer.num_special
        if self.window_tokens < 1:
            raise OperatorError(f"the model reads {self.info.max_tokens} tokens at once, which leaves none for a text")
        self.prompts: dict[str, str] = self.info.prompts | dict(self.settings.prompts)
        self.description = self.described(loaded)
        self.batcher = Batcher(
            max_batch_tokens=self.engine.max_batch_tokens or self.info.default_max_batch_tokens,
            max_queue_tokens=self.engine.max_queue_tokens,
            metrics=self.metrics,
            shapes=self.info.shapes,
            num_devices=len(loaded.encoders),
        )
        warm_up(loaded.encoders, max_batch_tokens=self.batcher.max_batch_tokens, seconds=self.engine.warmup_seconds)
        self.devices = [
            Device(encoder=encoder, batcher=self.batcher, metrics=self.metrics, on_failed=self.device_failed)
            for encoder in loaded.encoders
        ]
        for device in self.devices:
            device.start()

    def device_failed(self) -> None:
        """The others go on; without any, nobody is left to wait for."""
        if all(device.failed for device in self.devices):
            self.batcher.close(Overloaded("This model's device failed.", retry_after_seconds=30))

    def described(self, loaded: Loaded) -> Description:
        identity, rule = loaded.identity, self.settings.long_input
        fingerprint = Fingerprint(
            weights=identity.weights,
            tokenizer=identity.tokenizer,
            pooling=identity.pooling,
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
            created=identity.created,
            fidelity=loaded.fidelity,
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
        if self.devices and all(device.failed for device in self.devices):
            return Health("failed", f"{self.settings.source}: its device threads died too often")
        return self.state

    async def close(self) -> None:
        self.state = Health("failed", "closed")
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self.devices:
            self.batcher.close(closed())
        for device in self.devices:
            await asyncio.to_thread(device.join, JOIN_SECONDS)


def closed() -> GatewayError:
    return Overloaded("It is shutting down.", retry_after_seconds=1)


def warm_up(encoders: list[Encoder], *, max_batch_tokens: int, seconds: float) -> None:
    """Runs common shapes once in each encoder, single texts first, while there is time: a new shape costs a compilation."""
    deadline = time.monotonic() + seconds
    info = encoders[0].info
    lengths = [length for length in WARMUP_LENGTHS if length <= info.max_tokens]
    shapes = [(1, length) for length in lengths] + [
        (info.shapes.rows(max(1, max_batch_tokens // length)), length) for length in lengths
    ]
    for num_rows, length in shapes:
        for encoder in encoders:
            if time.monotonic() < deadline:
                encoder.embed([[0] * length] * num_rows)


def input_of_window(counts: list[int], position: int) -> int:
    """The index of the input that window `position` is cut from."""
    return int(np.searchsorted(np.cumsum(counts), position, side="right"))
