"""The Embedder of a model on a Ray cluster: tokenises and cuts here, and lets a replica embed."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from gateway.calls.message import ClusterStatus, EmbedCall, EmbedRefusal, EmbedResult, ReplicaInfo
from gateway.calls.packing import pack
from gateway.cluster.client_process import RayClientProcess
from gateway.cluster.ray_client import ClientConfig
from gateway.cluster.settings import BACKEND, RaySettings
from gateway.config import LimitSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Description, Health, Inputs, Prepared, Vectors
from gateway.embedding.tokens import TokenizedText
from gateway.engine.preprocessors import AnyPreprocessor, prepare_windows, preprocessor_of, preprocessor_of_texts
from gateway.engine.text_tokenizer import PooledTokenizer
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import DeadlinePassed, InvalidValue, ModelUnavailable, OperatorError, Overloaded, Unembeddable
from gateway.log import get_logger
from gateway.metrics.model import QueueFigures

UNAVAILABLE = "cluster_unavailable"  # the public category
TOKENIZER_THREADS = 4  # as many as the engine's
AWAY_SECONDS = 5.0  # Retry-After while the cluster is unavailable
RETRIED = ("lost", "other_vectors")  # another replica may answer; "other_vectors" comes from one that is being replaced

log = get_logger()


@dataclass(frozen=True, slots=True)
class _PackedInputs:
    """The work for a replica: packed windows, and the fingerprint that the vectors must have."""

    packed: NDArray[np.int32]
    fingerprint: str


class RayEmbedder:
    """Survives the loss of its cluster: it is "loading" while the cluster is unavailable, and "ready" once it is back."""

    def __init__(self, settings: RaySettings, context: BackendContext) -> None:
        self.settings = settings
        self.name = context.name
        self.limits = context.limits
        self.metrics = context.metrics
        self.cluster_metrics = context.metrics.of_cluster()
        self.state = Health("loading", "not started")
        self.pool = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix=f"tokenizer-{self.name}")
        self.description: Description | None = None
        self.changed = asyncio.Event()  # set while the cluster takes calls
        self.replica_info: asyncio.Future[ReplicaInfo] | None = None
        self.has_other_vectors = False
        self.is_closed = False
        config = ClientConfig(0, settings.address, settings.application_of(self.name), settings.replicas.min)
        self.client = RayClientProcess(
            self.name, config, on_status_change=self.on_status, on_replica=self.on_replica_info, on_death=self.on_death
        )

    async def start(self) -> None:
        """Waits for the cluster, however long it is unavailable. Raises OperatorError if ray is not installed."""
        try:
            refuse_without_ray(self.name)
        except OperatorError:
            self.state = Health("failed", "ray is not installed")
            raise
        self.state = Health("loading", "its Ray client is starting")
        self.replica_info = asyncio.get_running_loop().create_future()
        if self.client.background.death is not None:
            self.metrics.record_restart("cluster")
        self.client.open()
        info = await self.replica_info
        self.warn_of_differences(info)
        self.preprocessor = await asyncio.get_running_loop().run_in_executor(self.pool, _preprocessor_of, info, self.limits)
        self.text_tokenizer = PooledTokenizer(preprocessor_of_texts(self.preprocessor), self.pool)
        self.description = replace(info.description, backend=BACKEND)
        self.set_health(Health("ready"))

    def on_status(self, news: ClusterStatus) -> None:
        """Called every second, and when the Ray client ends."""
        if self.is_closed:
            return
        self.cluster_metrics.set_status(news.replicas, is_up=news.is_up)
        detail = news.detail
        if news.is_up and self.description is None:
            return  # ReplicaInfo comes first
        if news.is_up and news.fingerprint not in (None, self.describe().fingerprint):
            detail = f"the cluster has vectors {news.fingerprint} now, not {self.describe().fingerprint}: restart the gateway"
        elif news.is_up and news.fingerprint is None and self.has_other_vectors:
            return  # the fingerprint was not fetched again yet
        self.has_other_vectors = news.is_up and bool(detail)
        self.set_health(Health("loading", detail, UNAVAILABLE) if detail else Health("ready"))

    def on_death(self) -> None:
        """Called if Ray clients are no longer restarted: only a restart of the gateway helps. Fails a start that still waits."""
        if self.is_closed:
            return
        self.cluster_metrics.set_status({}, is_up=False)
        self.set_health(Health("failed", "its client process is no longer looked after", dead_parts=(self.client.background.name,)))
        if self.replica_info is not None and not self.replica_info.done():
            self.replica_info.set_exception(OperatorError(f"models[{self.name}]: its client process is no longer looked after"))

    def set_health(self, state: Health) -> None:
        if state != self.state:
            log.info("cluster", model=self.name, state=state.state, detail=state.detail)
        self.state = state
        if state.state == "ready":
            self.changed.set()
        else:
            self.changed.clear()

    def on_replica_info(self, info: ReplicaInfo) -> None:
        """Called with the ReplicaInfo of each new Ray client. The first one fixes the fingerprint that this gateway serves."""
        if self.replica_info is not None and not self.replica_info.done():
            self.replica_info.set_result(info)
        elif self.description is not None and info.description.fingerprint != self.description.fingerprint:
            self.on_status(ClusterStatus(is_up=True, fingerprint=info.description.fingerprint))

    def warn_of_differences(self, info: ReplicaInfo) -> None:
        """Logs the settings in which the row differs from the deployed one: it may have changed since."""
        differing = [
            name for name in info.settings.__struct_fields__ if getattr(info.settings, name) != getattr(self.settings, name)
        ]
        if differing:
            log.warning("deployed_otherwise", model=self.name, settings=differing, hint="what was deployed is in effect")

    async def prepare(self, inputs: Inputs) -> Prepared[_PackedInputs]:
        started = time.perf_counter()
        self.preprocessor.refuse_too_many_characters(inputs)
        abandoned = threading.Event()
        try:
            prepared = await asyncio.get_running_loop().run_in_executor(self.pool, self.prepare_packed, inputs, abandoned)
        finally:
            abandoned.set()  # a client that left needs no more tokens
        prepared.stages["tokenize"] = time.perf_counter() - started
        return prepared

    def prepare_packed(self, inputs: Inputs, abandoned: threading.Event) -> Prepared[_PackedInputs]:
        prepared = prepare_windows(self.preprocessor, inputs, abandoned)
        return prepared.with_work(_PackedInputs(pack(inputs, prepared.work), self.describe().fingerprint))

    async def tokenize(self, inputs: Inputs, *, add_special_tokens: bool) -> list[TokenizedText]:
        return await self.text_tokenizer.tokenize(inputs, add_special_tokens=add_special_tokens)

    async def decode(self, inputs: Inputs, *, skip_special_tokens: bool) -> list[str]:
        return await self.text_tokenizer.decode(inputs, skip_special_tokens=skip_special_tokens)

    async def embed(self, prepared: Prepared[_PackedInputs]) -> Vectors:
        """Embeds in one replica. If the call is lost, retries once, if there is time."""
        with self.cluster_metrics.call():
            answer, payload = await self.attempt(prepared)
            if isinstance(answer, EmbedRefusal) and answer.code in RETRIED:
                await self.wait_for_replica(prepared.inputs)
                answer, payload = await self.attempt(prepared)
        if isinstance(answer, EmbedRefusal):
            raise failure(answer)
        self.metrics.watch_queue(QueueFigures(backlog_seconds=answer.backlog_seconds))
        rows = np.frombuffer(payload, dtype=np.float32).reshape(-1, answer.dimensions)
        return Vectors(rows, answer.stages, row_counts=answer.row_counts)

    async def attempt(self, prepared: Prepared[_PackedInputs]) -> tuple[EmbedResult | EmbedRefusal, bytes]:
        """Makes one call, and counts it by its outcome."""
        inputs, load = prepared.inputs, prepared.work
        outcome = "cancelled"
        try:
            call = EmbedCall(
                number=0,
                seconds=seconds_left(inputs),
                caller=inputs.caller,
                normalize=inputs.normalize,
                fingerprint=load.fingerprint,
                weight=inputs.weight,
                service_class=inputs.service_class,
                field=inputs.field,
            )
            answer, payload = await self.client.call(call, load.packed.data.cast("B"))
            outcome = "ok" if isinstance(answer, EmbedResult) else answer.code
        finally:
            self.cluster_metrics.record_call(outcome)
        return answer, payload

    async def wait_for_replica(self, inputs: Inputs) -> None:
        """Waits until the cluster takes calls again. Raises ModelUnavailable if it does not before the deadline."""
        try:
            async with asyncio.timeout(seconds_left(inputs)):
                await self.changed.wait()
        except TimeoutError:
            raise _cluster_unavailable() from None

    def describe(self) -> Description:
        if self.description is None:
            raise RuntimeError("asked before a replica was met")
        return self.description

    def health(self) -> Health:
        return self.state

    async def close(self) -> None:
        self.is_closed = True
        self.state = Health("failed", "closed")
        await self.client.close()
        self.pool.shutdown(wait=False, cancel_futures=True)


def refuse_without_ray(name: str) -> None:
    """Raises OperatorError if ray is not installed."""
    if find_spec("ray") is None:
        raise OperatorError(f"models[{name}]: backend '{BACKEND}' needs the package ray: pip install 'ray[serve]'")


def _preprocessor_of(info: ReplicaInfo, limits: LimitSettings) -> AnyPreprocessor:
    """A preprocessor equal to the replica's own, made from its ReplicaInfo."""
    return preprocessor_of(info.network, Tokenizer(info.tokenizer_json), info.settings, limits)


def seconds_left(inputs: Inputs) -> float:
    """Seconds until the deadline. Raises DeadlinePassed if there are none."""
    seconds = inputs.deadline - time.monotonic()
    if seconds <= 0:
        raise DeadlinePassed
    return seconds


def failure(refused: EmbedRefusal) -> Exception:
    """The error for the client, by the refusal's code."""
    error: Exception
    match refused.code:
        case "unembeddable_input":
            error = Unembeddable(refused.where, refused.reason)
        case "invalid_value":
            error = InvalidValue(refused.reason, param=refused.where)
        case "timeout":
            error = DeadlinePassed(retry_after_seconds=refused.retry_after_seconds)
        case "server_overloaded":
            error = Overloaded(retry_after_seconds=refused.retry_after_seconds)
        case "model_unavailable":
            error = ModelUnavailable("The device of one of its replicas fails.", retry_after_seconds=refused.retry_after_seconds)
        case "failed":
            error = RuntimeError(f"a replica failed: {refused.reason}")  # a defect of ours: 500, and in the log
        case _:
            error = _cluster_unavailable()
    return error


def _cluster_unavailable() -> ModelUnavailable:
    return ModelUnavailable("What serves it does not answer.", retry_after_seconds=AWAY_SECONDS)
