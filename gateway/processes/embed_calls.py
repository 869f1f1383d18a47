"""Calls with windows that a front has cut: limits, cache, flights and work in one message.

A call that the cache answers, or that nobody else's work is for, takes no task: it is answered at once, or from the end of its own
work (`direct_call`). All others take the road of CachedEmbedder, in a task.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from gateway.calls.engine_message import WindowsWanted
from gateway.calls.message import EmbedCall
from gateway.calls.packing import unpack
from gateway.calls.vector_call import part_of, payload_of, prepared_of, result_of
from gateway.embedding.cached import CachedEmbedder
from gateway.embedding.embedder import Prepared, Vectors
from gateway.embedding.loading import Loader, can_serve
from gateway.embedding.model import Model
from gateway.embedding.model_use import closing_use
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.preprocessor import Windows
from gateway.errors import DeadlinePassed, GatewayError, Overloaded
from gateway.processes.direct_call import DirectCall, answer_from_cache
from gateway.processes.front_calls import FrontCalls
from gateway.processes.front_leases import FrontLeases
from gateway.processes.held_generations import HeldGenerations
from gateway.processes.model_states import local_of
from gateway.reload.generation import Generation

CHANGED = "The model was changed while it was asked."
MAX_DIRECT_BYTES = 64 * 1024  # of packed windows: 16,000 ids take a millisecond
MAX_ON_LOOP_BYTES = 256 * 1024  # a thread unpacks more


class EmbedCalls:
    """Used on the event loop only. `current` is the generation in effect, whose limits count."""

    def __init__(
        self,
        calls: FrontCalls,
        leases: FrontLeases,
        generations: HeldGenerations,
        current: Callable[[], Generation],
        loader: Loader,
    ) -> None:
        self.calls = calls
        self.leases = leases
        self.generations = generations
        self.current = current
        self.loader = loader

    def begin(self, call: EmbedCall, payload: bytes) -> None:
        """Answers a call, now or later; enters its lease first, if nothing has entered it. Raises as `begin_entered`."""
        if call.entering is None:
            self.begin_entered(call, payload)
        else:
            self.leases.acquire(call.number, call.entering, self.current(), then=lambda _: self.begin_entered(call, payload))

    def begin_entered(self, call: EmbedCall, payload: bytes) -> None:
        """Answers a call whose lease, if it has one, is entered. Raises Overloaded if the model's vectors are others by now."""
        model = self.generations.model(call.generation, call.model)
        local = local_of(model)
        if local is None or not model.load_state.has_described or local.describe().fingerprint != call.fingerprint:
            raise Overloaded(CHANGED)
        cached = model.embedder
        if not payload:
            self.answer_known(call, cached)
            return
        if not isinstance(cached, CachedEmbedder) or not self.begin_directly(call, payload, model, cached):
            self.calls.launch(call.number, self.embed(call, payload, model, local))

    def answer_known(self, call: EmbedCall, embedder: object) -> None:
        """Answers a call without windows: from the cache, or by asking for them."""
        lease = self.leases.find_local(call.charged_lease) if call.charged_lease else None
        may_answer = (lease is not None) == bool(call.charged_lease) and not call.places
        if may_answer and isinstance(embedder, CachedEmbedder) and embedder.describe().row_width is None:
            entries = embedder.find(call.digests)
            if entries is not None:
                answer_from_cache(call, entries, embedder, lease, self.calls)
                return
        self.calls.answer(WindowsWanted(number=call.number))

    def begin_directly(self, call: EmbedCall, payload: bytes, model: Model, cached: "CachedEmbedder[Windows]") -> bool:
        """Begins a call that needs no task, and perhaps answers it. Returns whether it could."""
        if call.places or len(payload) > MAX_DIRECT_BYTES or model.embedder.describe().row_width is not None:
            return False
        lease = None
        if number := call.charged_lease:
            lease = self.leases.find_local(number)
            if lease is None:
                return False
        if entries := cached.find(call.digests):
            answer_from_cache(call, entries, cached, lease, self.calls)
            return True
        local = local_of(model)
        if local is None or not can_serve(model):
            return False
        return DirectCall(call, local, cached, lease, self.calls, partial(self.loader.enter, model)).begin(payload)

    async def embed(self, call: EmbedCall, payload: bytes, model: Model, local: LocalEmbedder) -> None:
        """Answers one call from a task. A model that was unloaded meanwhile is loaded again."""
        lease = self.leases.find(call.charged_lease)
        deadline = time.monotonic() + call.seconds
        try:
            async with asyncio.timeout(call.seconds):
                with closing_use(await self.loader.acquire(model, model.name, deadline=deadline)):
                    if local.describe().fingerprint != call.fingerprint:
                        raise Overloaded(CHANGED)
                    prepared = await _prepare(call, payload, local)
                    vectors, num_cached_tokens = await self.compute(call, model.embedder, local, prepared)
        except (GatewayError, TimeoutError) as error:
            is_late = isinstance(error, TimeoutError) and time.monotonic() >= deadline
            self.calls.fail(call.number, DeadlinePassed() if is_late else error, lease.state if lease is not None else None)
            return
        state = lease.state if lease is not None else None
        result = result_of(call.number, vectors, num_cached_tokens=num_cached_tokens, state=state)
        self.calls.answer(result, payload_of(vectors.rows))

    async def compute(
        self, call: EmbedCall, embedder: object, local: LocalEmbedder, prepared: Prepared[Windows]
    ) -> tuple[Vectors, int]:
        """Charges the lease, and embeds what neither the cache nor a flight has. Returns the vectors, and the cached tokens."""
        lease = self.leases.find(call.charged_lease)
        num_tokens = sum([call.token_counts[place] for place in call.places] if call.places else call.token_counts)
        if not isinstance(embedder, CachedEmbedder) or not call.digests:
            if lease is not None:
                await lease.charge(num_tokens)
            return await local.embed(prepared), 0
        found = embedder.look_up(call.digests, call.places, prepared, partial(part_of, prepared))
        if lease is not None:
            await lease.charge(num_tokens, num_cached_tokens=found.num_cached_tokens)
        return await embedder.embed(found), found.num_cached_tokens


async def _prepare(call: EmbedCall, payload: bytes, local: LocalEmbedder) -> Prepared[Windows]:
    numbers = memoryview(payload).cast("i")
    packed = unpack(numbers) if len(payload) <= MAX_ON_LOOP_BYTES else await asyncio.to_thread(unpack, numbers)
    return prepared_of(call, packed, local.describe().kind)
