"""A model on this machine as an Embedder: tokenises texts, cuts them into windows, queues these, and joins their vectors."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Description, Health, Inputs, Prepared, ServiceClass, Vectors
from gateway.embedding.fingerprint import Fingerprint, digest
from gateway.embedding.sparse import NO_ROWS, dense_rows, join_sparse_windows
from gateway.embedding.tokens import TokenizedText
from gateway.embedding.vectors import ALL_ZERO, best_windows, join_windows, normalize_rows, refuse_no_vector, too_many_numbers
from gateway.engine import runtime
from gateway.engine.artifact import ArtifactStore
from gateway.engine.batcher import Batcher
from gateway.engine.budget import Budget
from gateway.engine.calibration import ranges_within
from gateway.engine.compiler import CompileProcess
from gateway.engine.device import Device
from gateway.engine.encoder import Encoder, NetworkInfo, OutOfMemory, Window
from gateway.engine.fidelity import UNFAITHFUL, Proof, proof_inputs, proof_window
from gateway.engine.identity import Identity
from gateway.engine.loaded_model import LoadedModel
from gateway.engine.preprocessor import Windows
from gateway.engine.preprocessors import prepare_windows, preprocessor_of, preprocessor_of_texts
from gateway.engine.settings import BACKEND, LocalSettings, refuse_settings_of_embedders
from gateway.engine.shared_tokenizers import tokenizers_of
from gateway.engine.text_tokenizer import PooledTokenizer
from gateway.engine.work import AllZero, Completion, NoVector, TooLarge, TooManyNumbers, Work
from gateway.errors import GatewayError, ModelUnavailable, OperatorError, Overloaded, Unembeddable
from gateway.log import get_logger
from gateway.malloc import release_memory
from gateway.metrics import QueueFigures
from gateway.tracing import stage

TOKENIZER_THREADS = 4  # so that a short query is not tokenised behind three bulk requests
PROOF_SECONDS = 120.0  # for one short text through a model that has just been warmed up
JOIN_SECONDS = 2.0  # a batch takes less; a device that hangs must not delay a forced shutdown
NEVER_ABANDONED = threading.Event()  # of texts that are tokenised at once
WARMUP_LENGTHS = (8, 16, 24, 32, 40, 48, 64, 96, 128, 256)

log = get_logger()


class LocalEmbedder:
    """An Embedder over the encoders of one model. Each has a device thread, and one batcher feeds them all."""

    def __init__(self, settings: LocalSettings, context: BackendContext) -> None:
        self.settings = settings
        self.context = context
        self.name = context.name
        self.limits = context.limits
        self.engine = context.engine
        self.metrics = context.metrics
        self.artifacts = artifacts_of(context)
        self.state = Health("loading", f"{settings.source}: not started")
        self.pool = self.new_pool()
        self.devices: list[Device] = []
        self.proof: Proof | None = None
        self.compile_process = CompileProcess(context.is_serving)
        self.load_lock = context.load_lock
        self.tokenizers = tokenizers_of(context.shared)
        self.free_runtime = nothing
        self.is_closed = False

    def new_pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix=f"tokenizer-{self.name}")

    async def start(self) -> None:
        try:
            async with self.load_lock:
                await asyncio.to_thread(self.load)
            if self.proof is not None and not self.is_closed:
                await self.prove(self.proof)
        except OperatorError as error:
            self.state = Health("failed", str(error))
            await asyncio.to_thread(self.free)
            raise
        self.state = Health("ready")

    async def plan_load(self) -> int:
        async with self.load_lock:
            return await asyncio.to_thread(runtime.plan_load, self.name, self.settings, self.artifacts, child=self.compile_process)

    async def unload(self) -> None:
        self.state = Health("loading", f"{self.settings.source}: unloaded")
        await asyncio.to_thread(self.free)

    def free(self) -> None:
        """Ends the threads, drops the model, and returns its memory to the system."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        if not self.is_closed:
            self.pool = self.new_pool()
        if self.devices:
            self.stop()
            for device in self.devices:
                device.drop_encoder()
            self.metrics.watch_queue(QueueFigures())
            del self.tokenizer, self.preprocessor, self.text_tokenizer, self.batcher
        self.devices, self.proof = [], None
        self.free_runtime()
        release_memory()

    async def prove(self, proof: Proof) -> None:
        """Self-test: embeds a text whose vector is known, as a request would. Raises OperatorError for another vector, or none."""
        window = proof_window(self.info.network, self.tokenizer)
        prepared = Prepared(proof_inputs(self.info.network), [len(window)], [False], "end", work=Windows([window], [1], [1]))
        try:
            async with asyncio.timeout(PROOF_SECONDS):
                rows = dense_rows(await self.embed(prepared), self.description)
        except TimeoutError:
            raise self.gives_no_vectors(f"nothing within {PROOF_SECONDS:.0f} seconds") from None
        except GatewayError as error:
            raise self.gives_no_vectors(f"an error, {error.outcome}") from None
        if window != proof.window:
            raise self.gives_no_vectors("other tokens")
        if not proof.holds(rows, self.info.precision):
            raise self.gives_no_vectors(f"another: its fidelity is {proof.fidelity(rows):.5f}")

    def gives_no_vectors(self, what: str) -> OperatorError:
        source = self.settings.source
        known = "a pair whose score" if self.info.network.kind == "reranker" else "a text whose vector"
        return OperatorError(f"{source}: of {known} is known, the loaded model gives {what}", category=UNFAITHFUL)

    def load(self) -> None:
        self.start_devices(runtime.load(self.name, self.settings, self.engine, self.artifacts, child=self.compile_process))
        pooling = runtime.default_pooling(self.settings)
        if pooling:
            log.warning("no_modules_json", model=self.name, hint=f"uses {pooling}, sentence-transformers' default")
        if self.is_closed:  # it was closed while this thread, which cannot be stopped, was loading
            self.stop()
            self.free_runtime()

    def start_devices(self, loaded: LoadedModel) -> None:
        """Warms up the encoders, and starts a device thread for each."""
        self.tokenizer = self.tokenizers.get(loaded.encoders[0].info.tokenizer_json)
        for encoder in loaded.encoders:  # frees the text, 39 MB for a vocabulary of 250,000 words; it is no longer needed
            encoder.info = replace(encoder.info, tokenizer_json="")
        self.info = loaded.encoders[0].info
        refuse_settings_of_embedders(self.settings, self.info.network.kind)
        self.prompts: dict[str, str] = self.info.network.prompts | dict(self.settings.prompts)
        self.preprocessor = preprocessor_of(self.info.network, self.tokenizer, self.settings, self.limits)
        self.text_tokenizer = PooledTokenizer(preprocessor_of_texts(self.preprocessor), self.pool)
        self.description = self.build_description(loaded)
        budget = Budget(self.engine.max_batch_tokens or self.info.default_max_batch_tokens, self.metrics)
        self.batcher = Batcher(
            budget=budget,
            max_queue_tokens=self.engine.max_queue_tokens,
            metrics=self.metrics,
            shapes=self.info.shapes,
            num_devices=len(loaded.encoders),
        )
        self.proof, self.free_runtime = loaded.proof, loaded.free
        warm_up(loaded.encoders, budget, seconds=self.engine.warmup_seconds, threads=1 if self.context.is_serving() else None)
        self.devices = [
            Device(encoder=encoder, batcher=self.batcher, metrics=self.metrics, on_failed=self.on_device_failed, proof=loaded.proof)
            for encoder in loaded.encoders
        ]
        for device in self.devices:
            device.start()
        loaded.afterwards()

    def on_device_failed(self) -> None:
        """Closes the batcher once all devices have failed; until then the others go on."""
        if all(device.failed for device in self.devices):
            self.batcher.close(ModelUnavailable("Its device fails."))

    def build_description(self, loaded: LoadedModel) -> Description:
        identity, rule = loaded.identity, self.settings.long_input
        fingerprint = fingerprint_of(
            identity,
            self.info.network,
            self.settings,
            runtime=self.info.runtime,
            precision=self.info.precision,
            calibration=self.info.calibration,
        )
        return Description(
            backend=BACKEND,
            kind=self.info.network.kind,
            source=self.settings.source,
            dimensions=self.info.network.dimensions,
            max_tokens=self.info.network.max_tokens,
            long_input=rule,
            fingerprint=str(fingerprint),
            runtime=self.info.runtime,
            device=",".join(dict.fromkeys(encoder.info.device for encoder in loaded.encoders)),
            precision=self.info.precision,
            created=identity.created,
            fidelity=loaded.fidelity,
            nearest_kept=loaded.nearest_kept,
            fallback=loaded.fallback,
            prompts=tuple(name for name, text in self.prompts.items() if text),
            tasks=self.info.network.tasks,
            ranges=ranges_within(loaded.proof.bound if loaded.proof else None, self.info.network.dimensions),
            takes_instruction=self.preprocessor.instruction_format is not None,
            takes_token_ids=self.info.network.kind == "embedder",
            pooling=self.info.network.pooling,
            num_bytes=loaded.num_bytes + self.tokenizer.num_bytes,
        )

    def from_fingerprint(self, fingerprint: str) -> "LocalEmbedder | None":
        """This row's settings over another stored artifact, one with that fingerprint. Returns None if there is none."""
        for place, manifest in self.artifacts.all():
            settings = msgspec.structs.replace(self.settings, source=manifest.source)
            found = fingerprint_of(
                manifest.identity,
                manifest.network,
                settings,
                runtime=manifest.runtime,
                precision=manifest.precision,
                calibration=manifest.calibration,
            )
            if manifest.runtime == "openvino" and str(found) == fingerprint:
                other = LocalEmbedder(settings, self.context)
                other.start_devices(runtime.load_artifact(self.name, place, manifest, self.engine))
                other.state = Health("ready")
                return other
        return None

    async def prepare(self, inputs: Inputs) -> Prepared[Windows]:
        started = time.perf_counter()
        self.preprocessor.refuse_too_many_characters(inputs)
        if self.preprocessor.is_short(inputs):
            prepared = prepare_windows(self.preprocessor, inputs, NEVER_ABANDONED)
        else:
            abandoned = threading.Event()
            try:
                prepared = await asyncio.get_running_loop().run_in_executor(
                    self.pool, prepare_windows, self.preprocessor, inputs, abandoned
                )
            finally:
                abandoned.set()  # stops tokenising for a client that left
        ended = time.perf_counter()
        stage("tokenize", started, ended)
        prepared.stages["tokenize"] = ended - started
        return prepared

    async def tokenize(self, inputs: Inputs, *, add_special_tokens: bool) -> list[TokenizedText]:
        return await self.text_tokenizer.tokenize(inputs, add_special_tokens=add_special_tokens)

    async def decode(self, inputs: Inputs, *, skip_special_tokens: bool) -> list[str]:
        return await self.text_tokenizer.decode(inputs, skip_special_tokens=skip_special_tokens)

    async def embed(self, prepared: Prepared[Windows]) -> Vectors:
        inputs, plan = prepared.inputs, prepared.work
        done = asyncio.get_running_loop().create_future()
        work = self.submit(plan, inputs.caller, weight=inputs.weight, service_class=inputs.service_class, done=done)
        try:
            await done
        except NoVector as error:
            raise failure_of(error, inputs, plan) from None
        finally:
            self.batcher.forget(work)  # if the client left; finished work is no longer queued
        stage("queue", work.submitted_at, work.started_at)
        stage("compute", work.started_at, work.finished_at)
        if isinstance(work.rows, list):
            sparse = await self.join_sparse(work.rows, plan)
            return Vectors(np.concatenate(sparse), work.stages, row_counts=list(map(len, sparse)))
        rows = self.join(work.rows, plan, normalize=inputs.normalize)
        if rows is not work.rows:  # windows may cancel each other out, and the length of large values may be infinite
            refuse_no_vector(rows, inputs)
        return Vectors(rows, work.stages)

    def submit(self, plan: Windows, caller: str, *, weight: float, service_class: ServiceClass, done: Completion) -> Work:
        """Queues windows. `done` is completed on this event loop: without an error once the work has its rows. Raises as
        `Batcher.submit`."""
        num_windows, network = len(plan.windows), self.info.network
        is_sparse = network.kind == "sparse_encoder"
        work = Work(
            caller=caller,
            windows=plan.windows,
            rows=[NO_ROWS] * num_windows if is_sparse else np.empty((num_windows, network.dimensions), dtype=np.float32),
            loop=asyncio.get_running_loop(),
            done=done,
            weight=weight,
            service_class=service_class,
        )
        self.batcher.submit(work)
        return work

    async def join_sparse(self, windows: list[NDArray[np.float32]], plan: Windows) -> list[NDArray[np.float32]]:
        """A row for each input of a sparse encoder. Long texts are joined in a thread: it takes 50 microseconds a text."""
        if len(windows) == len(plan.counts):
            return windows
        join = partial(join_sparse_windows, windows, counts=plan.counts, join=self.info.network.term_join)
        return await asyncio.get_running_loop().run_in_executor(self.pool, join)

    def join(self, windows: NDArray[np.float32], plan: Windows, *, normalize: bool) -> NDArray[np.float32]:
        """A row for each input: a reranker's best window, or an embedder's mean of them, normalised. May return `windows`."""
        if self.info.network.kind == "reranker":
            return best_windows(windows, counts=plan.counts)
        rows = join_windows(windows, counts=plan.counts, weights=plan.weights)
        was_joined = len(plan.windows) > len(plan.counts)
        return normalize_rows(rows) if self.must_normalize(normalize=normalize, was_joined=was_joined) else rows

    def must_normalize(self, *, normalize: bool, was_joined: bool) -> bool:
        """Whether to normalise rows here. A normalising model's windows have length 1, but a mean of several is shorter."""
        return was_joined if self.info.network.is_normalized else normalize

    def describe(self) -> Description:
        return self.description

    def health(self) -> Health:
        if self.devices and all(device.failed for device in self.devices):
            return Health("failed", f"{self.settings.source}: its device threads died too often")
        return self.state

    async def close(self) -> None:
        self.state, self.is_closed = Health("failed", "closed"), True
        self.compile_process.stop()
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self.devices:
            await asyncio.to_thread(self.stop)
        await asyncio.to_thread(self.free_runtime)  # what is still to be built of it is not waited for

    def stop(self) -> None:
        """Closes the batcher and joins the device threads, for JOIN_SECONDS in all: several devices that hang share that time."""
        self.batcher.close(_close_encoders())
        deadline = time.monotonic() + JOIN_SECONDS
        for device in self.devices:
            device.join(max(0.0, deadline - time.monotonic()))


def artifacts_of(context: BackendContext) -> ArtifactStore:
    """The store of compiled models."""
    own = context.engine.models_dir
    return ArtifactStore(Path(own) if own else context.data_dir / "models")


def fingerprint_of(  # noqa: PLR0913 - named
    identity: Identity, network: NetworkInfo, settings: LocalSettings, *, runtime: str, precision: str, calibration: str = ""
) -> Fingerprint:
    """The fingerprint of a network, loaded or compiled, and of those settings of its row that change vectors.

    Of an 8-bit network the texts that calibrated it count too: others give other weights.
    """
    form = settings.instruction_format
    return Fingerprint(
        weights=digest(identity.weights, identity.configuration),
        tokenizer=identity.tokenizer,
        pooling=identity.pooling,
        prompts=digest(network.prompts | dict(settings.prompts), network.default_prompt, *([form] if form else [])),
        long_input=digest(settings.long_input, network.max_tokens),
        runtime="-".join(filter(None, (runtime, precision, calibration))),
    )


def failure_of(error: NoVector, inputs: Inputs, plan: Windows) -> GatewayError:
    """The error for the client, which names the input whose window got no vector."""
    if isinstance(error, TooManyNumbers):
        return too_many_numbers()
    where = inputs.where(_input_of_window(plan.counts, error.position))
    match error:
        case AllZero():
            return Unembeddable(where, ALL_ZERO)
        case TooLarge():
            return Unembeddable(where, "its device has too little memory for it")
        case _:
            return Unembeddable(where)


def nothing() -> None:
    """What there is to free before the first load."""


def _close_encoders() -> GatewayError:
    return Overloaded("It is shutting down.", retry_after_seconds=1)


def warm_up(encoders: list[Encoder], budget: Budget, *, seconds: float, threads: int | None = None) -> None:
    """Runs common shapes once in each encoder, while time is left: a new shape costs a compilation, a larger batch new memory.

    With fewer threads than encoders it leaves CPUs to others.
    """
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(threads or len(encoders), thread_name_prefix="warm-up") as pool:
        for is_full in (False, True):
            list(pool.map(lambda encoder: _warm_up_one(encoder, budget, deadline, is_full=is_full), encoders))  # noqa: B023 - at once


def _warm_up_one(encoder: Encoder, budget: Budget, deadline: float, *, is_full: bool) -> None:
    """Runs single texts or full batches, the longest last. Running out of memory shrinks the budget before any request waits."""
    longest = min(encoder.info.network.max_tokens, budget.max_tokens)
    for length in [*(length for length in WARMUP_LENGTHS if length < longest), longest]:
        if time.monotonic() >= deadline:
            return
        num_rows = encoder.info.shapes.rows(max(1, budget.max_tokens // length)) if is_full else 1
        try:
            encoder.embed([Window([0] * length)] * num_rows)
        except (OutOfMemory, MemoryError):
            budget.shrink(num_rows * length)


def _input_of_window(counts: list[int], position: int) -> int:
    """The index of the input that window `position` was cut from."""
    return int(np.searchsorted(np.cumsum(counts), position, side="right"))
