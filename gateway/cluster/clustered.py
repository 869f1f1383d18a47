"""A model on a Ray cluster, as an Embedder: tokenised and cut here, embedded by a replica there."""

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from gateway.cluster.courier import Orders
from gateway.cluster.line import Line
from gateway.cluster.message import Call, Card, Done, News, Refused
from gateway.cluster.parcel import packed
from gateway.cluster.settings import RaySettings
from gateway.config import LimitSettings
from gateway.embedding.backend import Context
from gateway.embedding.embedder import Description, Health, Inputs, Prepared, Vectors
from gateway.engine.encoder import EncoderInfo
from gateway.engine.plan import Planner
from gateway.engine.tokenizer import Tokenizer
from gateway.errors import ConfigurationError, DeadlinePassed, ModelUnavailable, OperatorError, Overloaded, Unembeddable
from gateway.log import get_logger

AWAY = "cluster_unavailable"  # what strangers are told of a cluster that is away
TOKENIZER_THREADS = 4  # as the engine's own
AWAY_SECONDS = 5.0  # after which a client may ask again
RETRIED = ("lost", "other_vectors")  # by another replica; the second of one that is just being replaced

log = get_logger()


class Ray:
    """The backend of models that run on a Ray cluster."""

    name = "ray"
    settings = RaySettings

    def build(self, settings: RaySettings, context: Context) -> "Clustered":
        """Raises ConfigurationError where such a model cannot be served from here."""
        if sys.platform == "win32":
            raise ConfigurationError(f"models[{context.name}].backend: 'ray' needs Linux or macOS on the gateway's side")
        return Clustered(settings, context)


@dataclass(frozen=True, slots=True)
class Load:
    """What goes to a replica: a parcel, and the vectors that are wanted for it."""

    parcel: NDArray[np.int32]
    fingerprint: str


class Clustered:
    """Never fails for good: while the cluster is away, it is loading, and once it is back, ready."""

    def __init__(self, settings: RaySettings, context: Context) -> None:
        self.settings = settings
        self.name = context.name
        self.limits = context.limits
        self.metrics = context.metrics
        self.state = Health("loading", "not started")
        self.pool = ThreadPoolExecutor(TOKENIZER_THREADS, thread_name_prefix=f"tokenizer-{self.name}")
        self.description: Description | None = None
        self.changed = asyncio.Event()  # set while calls make sense
        self.card: asyncio.Future[Card] | None = None
        self.has_other_vectors = False
        self.is_closed = False
        orders = Orders(0, settings.address, settings.application_of(self.name), settings.replicas.min)
        self.line = Line(self.name, orders, on_news=self.heard, on_card=self.met)

    async def start(self) -> None:
        """Waits for the cluster, however long it is away. Raises OperatorError where ray is not installed."""
        if find_spec("ray") is None:
            self.state = Health("failed", "ray is not installed")
            raise OperatorError(f"models[{self.name}]: backend 'ray' needs the package ray: pip install 'ray[serve]'")
        self.state = Health("loading", "its courier is starting")
        self.card = asyncio.get_running_loop().create_future()
        self.line.open()
        card = await self.card
        self.warn_of_differences(card)
        self.planner = await asyncio.get_running_loop().run_in_executor(self.pool, planner_of, card, self.limits)
        self.description = replace(card.description, backend=Ray.name)
        self.become(Health("ready"))

    def heard(self, news: News) -> None:
        """Of the courier, every second and when it ends."""
        if self.is_closed:
            return
        self.metrics.cluster_seen(news.replicas, is_up=news.is_up)
        detail = news.detail
        if news.is_up and self.description is None:
            return  # its card comes first
        if news.is_up and news.fingerprint not in (None, self.describe().fingerprint):
            detail = f"the cluster has vectors {news.fingerprint} now, not {self.describe().fingerprint}: restart the gateway"
        elif news.is_up and news.fingerprint is None and self.has_other_vectors:
            return  # not asked again yet
        self.has_other_vectors = news.is_up and bool(detail)
        self.become(Health("loading", detail, AWAY) if detail else Health("ready"))

    def become(self, state: Health) -> None:
        if state != self.state:
            log.info("cluster", model=self.name, state=state.state, detail=state.detail)
        self.state = state
        if state.state == "ready":
            self.changed.set()
        else:
            self.changed.clear()

    def met(self, card: Card) -> None:
        """A replica's card came, with each courier anew. The first one says for good which vectors this gateway serves."""
        if self.card is not None and not self.card.done():
            self.card.set_result(card)
        elif self.description is not None and card.description.fingerprint != self.description.fingerprint:
            self.heard(News(is_up=True, fingerprint=card.description.fingerprint))

    def warn_of_differences(self, card: Card) -> None:
        """The row here may have changed since it was deployed from."""
        differing = [
            name for name in card.settings.__struct_fields__ if getattr(card.settings, name) != getattr(self.settings, name)
        ]
        if differing:
            log.warning("deployed_otherwise", model=self.name, settings=differing, hint="what was deployed is in effect")

    async def prepare(self, inputs: Inputs) -> Prepared:
        started = time.perf_counter()
        self.planner.refuse_too_many_characters(inputs)
        abandoned = threading.Event()
        try:
            prepared = await asyncio.get_running_loop().run_in_executor(self.pool, self.planned, inputs, abandoned)
        finally:
            abandoned.set()  # a client that left needs no more tokens
        prepared.stages["tokenize"] = time.perf_counter() - started
        return prepared

    def planned(self, inputs: Inputs, abandoned: threading.Event) -> Prepared:
        prepared = self.planner.planned(inputs, abandoned)
        return replace(prepared, work=Load(packed(inputs, prepared.work), self.describe().fingerprint))

    async def embed(self, prepared: Prepared) -> Vectors:
        """One replica's work; where it was lost in the middle of it, one more's, if there is time."""
        with self.metrics.cluster_call():
            answer, payload = await self.attempted(prepared)
            if isinstance(answer, Refused) and answer.code in RETRIED:
                await self.returned(prepared.inputs)
                answer, payload = await self.attempted(prepared)
        if isinstance(answer, Refused):
            raise failure(answer)
        self.metrics.backlog_seconds.set(answer.backlog_seconds)
        rows = np.frombuffer(payload, dtype=np.float32).reshape(-1, answer.dimensions)
        return Vectors(rows, answer.stages)

    async def attempted(self, prepared: Prepared) -> tuple[Done | Refused, bytes]:
        """One call, counted by its outcome."""
        inputs, load = prepared.inputs, prepared.work
        outcome = "cancelled"
        try:
            call = Call(
                number=0,
                seconds=seconds_left(inputs),
                caller=inputs.caller,
                normalize=inputs.normalize,
                fingerprint=load.fingerprint,
                weight=inputs.weight,
                service_class=inputs.service_class,
            )
            answer, payload = await self.line.call(call, memoryview(load.parcel).cast("B"))
            outcome = "ok" if isinstance(answer, Done) else answer.code
        finally:
            self.metrics.cluster_called(outcome)
        return answer, payload

    async def returned(self, inputs: Inputs) -> None:
        """Waits until calls make sense again. Raises Overloaded where they do not in time."""
        try:
            async with asyncio.timeout(seconds_left(inputs)):
                await self.changed.wait()
        except TimeoutError:
            raise away() from None

    def describe(self) -> Description:
        if self.description is None:
            raise RuntimeError("asked before a replica was met")
        return self.description

    def health(self) -> Health:
        return self.state

    async def close(self) -> None:
        self.is_closed = True
        self.state = Health("failed", "closed")
        await self.line.close()
        self.pool.shutdown(wait=False, cancel_futures=True)


def planner_of(card: Card, limits: LimitSettings) -> Planner:
    """The replica's own planner, made again from its card."""
    about = card.description
    info = EncoderInfo(
        dimensions=about.dimensions,
        max_tokens=about.max_tokens,
        tokenizer_json=card.tokenizer_json,
        prompts=card.prompts,
        default_prompt=card.default_prompt,
        is_normalized=card.is_normalized,
        runtime=about.runtime,
        device=about.device,
        precision=about.precision,
        default_max_batch_tokens=0,
        leaves_prompt_out=card.leaves_prompt_out,
        tasks=about.tasks,
    )
    tokenizer = Tokenizer(card.tokenizer_json)
    form = card.settings.instruction_format
    return Planner(info, tokenizer, prompts=card.prompts, rule=about.long_input, limits=limits, instruction_format=form)


def seconds_left(inputs: Inputs) -> float:
    """Raises DeadlinePassed."""
    seconds = inputs.deadline - time.monotonic()
    if seconds <= 0:
        raise DeadlinePassed
    return seconds


def failure(refused: Refused) -> Exception:
    """The error a client is answered with."""
    match refused.code:
        case "unembeddable_input":
            return Unembeddable(refused.where, refused.reason)
        case "timeout":
            return DeadlinePassed(retry_after_seconds=refused.retry_after_seconds)
        case "server_overloaded":
            return Overloaded(retry_after_seconds=refused.retry_after_seconds)
        case "model_unavailable":
            return ModelUnavailable("The device of one of its replicas fails.", retry_after_seconds=refused.retry_after_seconds)
        case "failed":
            return RuntimeError(f"a replica failed: {refused.reason}")  # ours: 500, and in the log
    return away()


def away() -> Overloaded:
    return Overloaded("What serves this model does not answer.", retry_after_seconds=AWAY_SECONDS)
