"""The Embedder of a front: it tokenises here, where the model's tokenizer is small enough, and lets the engine process embed."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from gateway.background import launch
from gateway.calls.engine_message import (
    DecodeCall,
    EmbedPrepared,
    InfoCall,
    ModelState,
    PrepareCall,
    ReadyCall,
    TokenizeCall,
    WindowsWanted,
)
from gateway.calls.message import EmbedCall, EmbedResult
from gateway.config import LimitSettings
from gateway.embedding.embedder import MAX_NUMBERS, Description, Health, Inputs, Prepared, StageSeconds, Vectors
from gateway.embedding.loading import Loader
from gateway.embedding.model import Model
from gateway.embedding.model import ModelState as ModelStateName
from gateway.embedding.tokens import TokenizedText
from gateway.embedding.vectors import too_many_numbers
from gateway.errors import DeadlinePassed, GatewayError, ModelLoading, RequestTooLong
from gateway.log import get_logger
from gateway.malloc import release_memory
from gateway.processes.engine_client import EngineClient
from gateway.processes.front_tokenizing import DistinctInputs, FrontTokenizing
from gateway.processes.remote_lease import RemoteLease
from gateway.tracing import stage, trace_headers

log = get_logger()


@dataclass(slots=True)
class EngineWork:
    """What the engine process embeds: inputs that were counted here, by `tokenizing`, or those that it keeps under `number`.

    `lease` is the request's own, which is charged.
    """

    own: DistinctInputs | None = None
    tokenizing: FrontTokenizing | None = None
    number: int = 0
    lease: RemoteLease | None = field(default=None, repr=False)


class EngineEmbedder:
    """One model of one generation of the engine process. `place` is the place of its row; `shown` its state as told last."""

    def __init__(  # noqa: PLR0913 - named where it is made
        self, name: str, place: int, generation: int, client: EngineClient, limits: LimitSettings, *, has_cache: bool
    ) -> None:
        self.name = name
        self.place = place
        self.generation = generation
        self.client = client
        self.limits = limits
        self.has_cache = has_cache
        self.shown = ModelState(state="loading", health=Health("loading", "the engine process has not told it yet"))
        self.tokenizing: FrontTokenizing | None = None
        self.learning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Does nothing: the engine process starts its models."""

    def show(self, state: ModelState, before: "EngineEmbedder | None" = None) -> None:
        """Takes a new state. A model that is ready is tokenised here from then on; by the tokenizer of `before`, if that is its.

        That of a model that was unloaded is dropped.
        """
        self.shown = state
        if state.description is None or state.is_tokenized_here or state.state != "ready":
            if self.tokenizing is not None:
                self.tokenizing = None
                launch(asyncio.to_thread(release_memory), name="release-memory", is_awaited=False)
            return
        known = before.tokenizing if before is not None else self.tokenizing
        self.tokenizing = known if known is not None and known.fingerprint == state.description.fingerprint else None
        if self.tokenizing is None and (self.learning is None or self.learning.done()):
            self.learning = launch(self.learn(), name=f"learn-{self.name}", is_awaited=False)

    async def learn(self) -> None:
        """Fetches the tokenizer. Until it is here, and if it cannot be had, the engine process tokenises."""
        try:
            answer, _ = await self.client.call(InfoCall, is_early=True, generation=self.generation, model=self.place)
        except GatewayError as error:
            log.warning("tokenizer_not_fetched", model=self.name, code=error.outcome)
            return
        if answer.info is None:
            return
        tokenizing = await asyncio.to_thread(FrontTokenizing, answer.info, self.limits)
        if self.shown.description is not None and self.shown.description.fingerprint == tokenizing.fingerprint:
            self.tokenizing = tokenizing

    async def prepare(self, inputs: Inputs) -> Prepared[EngineWork]:
        if self.tokenizing is None:
            return await self.prepare_there(inputs)
        started = time.perf_counter()
        own = await self.tokenizing.prepare(inputs, self.describe(), has_cache=self.has_cache and self.describe().row_width is None)
        stages, places = _tokenized(started) if own.packed is not None else {}, own.places
        whole = Prepared(
            inputs,
            [own.token_counts[place] for place in places] if places else own.token_counts,
            [own.is_long[place] for place in places] if places else own.is_long,
            own.rule,
            work=EngineWork(own, self.tokenizing),
            stages=stages,
        )
        if places and whole.num_tokens > self.limits.max_request_tokens:
            raise RequestTooLong(str(whole.num_tokens), self.limits.max_request_tokens).after(num_tokens=own.num_tokens)
        return whole

    async def prepare_there(self, inputs: Inputs) -> Prepared[EngineWork]:
        """Lets the engine process tokenise, which keeps its work."""
        self.client.refuse_unusable()
        number = self.client.channel.new_number()
        answer, _ = await self.client.call(
            PrepareCall,
            number=number,
            generation=self.generation,
            model=self.place,
            seconds=seconds_until(inputs.deadline),
            inputs=inputs,
            trace=trace_headers(),
        )
        return Prepared(
            inputs,
            answer.token_counts,
            answer.is_long,
            answer.rule,
            work=EngineWork(number=number),
            stages=answer.stages,
            num_cached_tokens=answer.num_cached_tokens,
        )

    async def embed(self, prepared: Prepared[EngineWork]) -> Vectors:
        work, inputs = prepared.work, prepared.inputs
        if work.own is None or work.tokenizing is None:
            return await self.embed_there(work)
        own, known = work.own, work.tokenizing.known
        answer, payload = await self.ask(own, inputs, work.lease)
        if isinstance(answer, WindowsWanted):
            known.forget(own.digests)
            own = await work.tokenizing.tokenize(inputs, own.digests)
            answer, payload = await self.ask(own, inputs, work.lease)
        if own.packed is not None and answer.num_hits is not None:
            known.remember(own.digests, own.token_counts, own.is_long)
        _trace(answer.stages)
        return vectors_of(answer, payload, own.places)

    async def embed_there(self, work: EngineWork) -> Vectors:
        """Embeds what the engine process has prepared, and kept."""
        lease = work.lease
        if lease is not None:
            lease.kept.discard(work.number)
            if lease.is_deferred:
                await lease.enter()
        charged = lease if lease is not None and lease.number else None
        number = charged.number if charged is not None else 0
        answer, payload = await self.client.call(EmbedPrepared, number=work.number, charged=charged, lease=number)
        _trace(answer.stages)
        return vectors_of(answer, payload, [])

    async def ask(self, own: DistinctInputs, inputs: Inputs, lease: RemoteLease | None) -> tuple[Any, bytes]:
        """Makes an EmbedCall. The answer is an EmbedResult, or WindowsWanted if there were none."""
        number, entering = 0, None
        if lease is not None and lease.is_deferred:
            number = self.client.channel.new_number()
            entering = lease.enter_by(number)
        charged = lease if lease is not None and lease.number else None
        return await self.client.call(
            EmbedCall,
            own.packed.data.cast("B") if own.packed is not None else b"",
            number=number,
            charged=charged,
            generation=self.generation,
            model=self.place,
            seconds=seconds_until(inputs.deadline),
            caller=inputs.caller,
            normalize=inputs.normalize,
            fingerprint=self.describe().fingerprint,
            weight=inputs.weight,
            service_class=inputs.service_class,
            field=inputs.field,
            lease=charged.number if charged is not None and entering is None else 0,
            entering=entering,
            digests=own.digests,
            token_counts=own.token_counts,
            is_long=own.is_long if any(own.is_long) else [],
            rule=own.rule,
            places=own.places,
            trace=trace_headers(),
        )

    async def tokenize(self, inputs: Inputs, *, add_special_tokens: bool) -> list[TokenizedText]:
        if self.tokenizing is not None:
            return await self.tokenizing.texts.tokenize(inputs, add_special_tokens=add_special_tokens)
        answer, _ = await self.client.call(
            TokenizeCall,
            generation=self.generation,
            model=self.place,
            seconds=seconds_until(inputs.deadline),
            inputs=inputs,
            add_special_tokens=add_special_tokens,
        )
        texts: list[TokenizedText] = answer.texts
        return texts

    async def decode(self, inputs: Inputs, *, skip_special_tokens: bool) -> list[str]:
        if self.tokenizing is not None:
            return await self.tokenizing.texts.decode(inputs, skip_special_tokens=skip_special_tokens)
        answer, _ = await self.client.call(
            DecodeCall,
            generation=self.generation,
            model=self.place,
            seconds=seconds_until(inputs.deadline),
            inputs=inputs,
            skip_special_tokens=skip_special_tokens,
        )
        texts: list[str] = answer.texts
        return texts

    def describe(self) -> Description:
        if self.shown.description is None:
            raise RuntimeError("asked before the model was loaded")
        return self.shown.description

    def health(self) -> Health:
        return self.shown.health

    async def close(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Fetches no tokenizer any more."""
        if self.learning is not None:
            self.learning.cancel()


class EngineModel(Model):
    """A model whose state the engine process tells."""

    __slots__ = ()

    @property
    def state(self) -> ModelStateName:
        return cast("ModelStateName", engine_embedder(self).shown.state)


def engine_embedder(model: Model) -> EngineEmbedder:
    return cast("EngineEmbedder", model.embedder)


class EngineLoader(Loader):
    """Asks the engine process for a model that is not ready."""

    async def ensure_ready(self, model: Model, name: str, *, deadline: float) -> None:
        """Returns at once if the model can serve. Raises ModelLoading, ModelUnavailable or EngineUnavailable."""
        embedder = engine_embedder(model)
        embedder.client.refuse_unusable()
        if model.state == "ready":
            return
        await embedder.client.call(
            ReadyCall, generation=embedder.generation, model=embedder.place, name=name, seconds=seconds_until(deadline)
        )
        if embedder.shown.description is None:  # its state comes before the answer
            raise ModelLoading(name)


def vectors_of(answer: EmbedResult, payload: bytes, places: list[int]) -> Vectors:
    """The rows of a request's inputs. Raises InvalidValue if repetitions make them too many."""
    rows = np.frombuffer(payload, dtype=np.float32).reshape(-1, answer.dimensions)
    row_counts, token_counts = answer.row_counts, answer.token_counts
    if places and row_counts is None:
        rows = rows[places]
    elif places and row_counts is not None:
        parts = np.split(rows, np.cumsum(row_counts)[:-1])
        row_counts = [row_counts[place] for place in places]
        if sum(row_counts) * answer.dimensions > MAX_NUMBERS:
            raise too_many_numbers()
        rows = np.concatenate([parts[place] for place in places])
    return Vectors(
        rows,
        answer.stages,
        num_hits=answer.num_hits,
        token_counts=[token_counts[place] for place in places] if places and token_counts is not None else token_counts,
        member=answer.member,
        fingerprint=answer.fingerprint,
        row_counts=row_counts,
        num_cached_tokens=answer.num_cached_tokens,
    )


def seconds_until(deadline: float) -> float:
    """Seconds until the deadline. Raises DeadlinePassed if there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise DeadlinePassed
    return seconds


def _tokenized(started: float) -> StageSeconds:
    """The stage of tokenising, which has just ended."""
    ended = time.perf_counter()
    stage("tokenize", started, ended)
    return {"tokenize": ended - started}


def _trace(stages: StageSeconds) -> None:
    """Adds the engine process's stages to the request's trace, one after another until now."""
    ended = time.perf_counter()
    for name, seconds in reversed(stages.items()):
        stage(name, ended - seconds, ended)
        ended -= seconds
