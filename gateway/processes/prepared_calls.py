"""Calls with texts, of models for which a front does not tokenise: prepared first, and embedded once the front says so."""

import asyncio
import time
from dataclasses import dataclass, replace

from gateway.calls.engine_message import EmbedPrepared, PrepareCall, PreparedResult
from gateway.calls.vector_call import payload_of, result_of
from gateway.embedding.embedder import Prepared
from gateway.embedding.loading import Loader
from gateway.embedding.model import Model
from gateway.embedding.model_use import ModelUse, closing_use
from gateway.errors import DeadlinePassed, GatewayError, Overloaded
from gateway.processes.front_calls import FrontCalls
from gateway.processes.front_leases import FrontLeases
from gateway.processes.held_generations import HeldGenerations
from gateway.tracing import Tracing

MAX_PREPARED = 4096  # of one front; each waits for an answer of a few milliseconds


@dataclass(frozen=True, slots=True)
class _Kept:
    model: Model
    prepared: Prepared[object]
    trace: dict[str, str]
    use: ModelUse


class PreparedCalls:
    """Keeps what was prepared until it is embedded, cancelled or late."""

    def __init__(
        self, calls: FrontCalls, leases: FrontLeases, generations: HeldGenerations, tracing: Tracing | None, loader: Loader
    ) -> None:
        self.loader = loader
        self.calls = calls
        self.leases = leases
        self.generations = generations
        self.tracing = tracing
        self.kept: dict[int, _Kept] = {}

    async def prepare(self, call: PrepareCall) -> None:
        """Answers with the counts. Raises what `Embedder.prepare` raises, and Overloaded if too much is kept already."""
        model = self.generations.model(call.generation, call.model)
        if len(self.kept) >= MAX_PREPARED:
            raise Overloaded
        self.resume(call.trace)
        inputs = replace(call.inputs, deadline=time.monotonic() + call.seconds)
        use = await self.loader.acquire(model, model.name, deadline=inputs.deadline)
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + inputs.deadline - time.monotonic()):
                prepared = await model.embedder.prepare(inputs)
        except TimeoutError:
            use.release()
            raise DeadlinePassed from None
        except BaseException:
            use.release()
            raise
        self.kept[call.number] = _Kept(model, prepared, call.trace, use)
        self.calls.answer(
            PreparedResult(
                number=call.number,
                token_counts=prepared.token_counts,
                is_long=prepared.is_long,
                rule=prepared.rule,
                stages=prepared.stages,
                num_cached_tokens=prepared.num_cached_tokens,
            )
        )

    async def embed(self, call: EmbedPrepared) -> None:
        """Charges the lease, embeds, and answers with the rows."""
        kept = self.kept.pop(call.number, None)
        if kept is None:
            raise DeadlinePassed
        with closing_use(kept.use):
            await self.embed_kept(call, kept)

    async def embed_kept(self, call: EmbedPrepared, kept: _Kept) -> None:
        self.resume(kept.trace)
        lease, prepared = self.leases.find(call.lease), kept.prepared
        try:
            if lease is not None:
                await lease.charge(prepared.num_tokens, num_cached_tokens=prepared.num_cached_tokens)
            async with asyncio.timeout(prepared.inputs.deadline - time.monotonic()):
                vectors = await kept.model.embedder.embed(prepared)
        except (GatewayError, TimeoutError) as error:
            late = DeadlinePassed() if isinstance(error, TimeoutError) else error
            self.calls.fail(call.number, late, lease.state if lease is not None else None)
            return
        state = lease.state if lease is not None else None
        result = result_of(call.number, vectors, num_cached_tokens=prepared.num_cached_tokens, state=state)
        self.calls.answer(result, payload_of(vectors.rows))

    def resume(self, trace: dict[str, str]) -> None:
        if self.tracing is not None and trace:
            self.tracing.resume(trace)

    def drop(self, number: int) -> None:
        if kept := self.kept.pop(number, None):
            kept.use.release()

    def drop_late(self) -> None:
        """Drops what nobody will ask for: the front has given up its request by now."""
        now = time.monotonic()
        for number in [number for number, kept in self.kept.items() if kept.prepared.inputs.deadline < now]:
            self.drop(number)

    def close(self) -> None:
        for number in list(self.kept):
            self.drop(number)
