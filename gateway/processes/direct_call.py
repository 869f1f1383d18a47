"""A call for vectors that is answered without a task: from the cache, or from the end of its own work.

It shares flights with the calls and requests that have tasks: these join it, and it lands for them.
"""

from collections.abc import Callable, Sequence

from gateway.access.limits.limiter import RateLimitLease
from gateway.calls.message import EmbedCall, EmbedResult
from gateway.calls.packing import PackedWindows, unpack
from gateway.calls.vector_call import prepared_of
from gateway.embedding.cache import Entry
from gateway.embedding.cached import CachedEmbedder
from gateway.embedding.embedder import Inputs, StageSeconds
from gateway.embedding.model_use import ModelUse
from gateway.embedding.vectors import refuse_no_vector
from gateway.engine.embedder import LocalEmbedder, failure_of
from gateway.engine.preprocessor import Windows
from gateway.engine.work import NoVector, Work
from gateway.errors import GatewayError
from gateway.processes.front_calls import FrontCalls
from gateway.processes.front_leases import charge_now

FLOAT_BYTES = 4


def answer_from_cache(
    call: EmbedCall, entries: list[Entry], cached: CachedEmbedder[Windows], lease: RateLimitLease | None, calls: FrontCalls
) -> None:
    """Charges the lease, and answers a call all of whose inputs the cache has."""
    cached.metrics.record_lookups(hit=len(entries))
    num_tokens = sum(call.token_counts)
    if lease is not None and not _charge(call, lease, calls, num_tokens, num_cached_tokens=num_tokens):
        return
    _answer(call, [entry.row for entry in entries], calls, lease, num_hits=len(entries), num_cached_tokens=num_tokens)


class DirectCall:
    """A call for inputs that nobody has, and nobody else embeds now. The Completion of its own work.

    It and its work and flight know each other. At its end it forgets these: a cycle would be left to the garbage collector, which
    then took a third of a call's time.
    """

    __slots__ = ("cached", "call", "calls", "enter", "flight", "has_left", "is_done", "lease", "local", "packed", "use", "work")

    def __init__(  # noqa: PLR0913, PLR0917 - what `begin` needs, in its order
        self,
        call: EmbedCall,
        local: LocalEmbedder,
        cached: CachedEmbedder[Windows],
        lease: RateLimitLease | None,
        calls: FrontCalls,
        enter: Callable[[], ModelUse],
    ) -> None:
        self.enter = enter
        self.call = call
        self.local = local
        self.cached = cached
        self.lease = lease
        self.calls = calls
        self.is_done = self.has_left = False
        self.packed: PackedWindows
        self.work: Work

    def begin(self, payload: bytes) -> bool:
        """Charges the lease, and queues the work. Returns whether it could: False if other work is for these inputs too.

        Raises Overloaded, and ValueError for a payload that is no windows.
        """
        call, calls = self.call, self.calls
        self.packed = unpack(memoryview(payload).cast("i"))
        flight = self.cached.depart(call.digests, self.abandon)
        if flight is None:
            return False
        self.flight = flight
        if self.lease is not None and not _charge(call, self.lease, calls, sum(call.token_counts)):
            self.cached.crash(flight, None)
            del self.flight
            return True
        self.cached.metrics.record_lookups(miss=len(call.digests))
        try:
            self.work = self.local.submit(
                self.packed.work, call.caller, weight=call.weight, service_class=call.service_class, done=self
            )
        except BaseException:
            self.cached.crash(flight, None)
            raise
        self.use = self.enter()
        calls.cancellations[call.number] = self.leave
        return True

    def leave(self) -> None:
        """The client has left. Others who have joined the flight may still wait for it."""
        self.has_left = True
        self.flight.leave(self.flight.task)

    def abandon(self) -> None:
        """Nobody waits any more."""
        self.local.batcher.forget(self.work)
        self.cached.crash(self.flight, None)
        self.end()

    def end(self) -> None:
        self.is_done = True
        self.use.release()
        del self.work, self.flight

    def done(self) -> bool:
        return self.is_done

    def set_result(self, _: None) -> None:
        """The work has its rows."""
        try:
            rows = self.rows()
        except Exception as error:  # noqa: BLE001 - the other works of its batch must hear of their end
            self.set_exception(error)
            return
        call, stages = self.call, self.work.stages
        counts, is_long = call.token_counts, call.is_long or [False] * len(rows)
        entries = [Entry(*each) for each in zip(rows, counts, is_long, strict=True)]
        self.cached.land(self.flight, entries, stages)
        self.end()
        if not self.has_left:
            self.calls.cancellations.pop(call.number, None)
            num_hits = 0 if self.cached.is_shared else None
            _answer(call, rows, self.calls, self.lease, num_hits=num_hits, stages=stages)

    def set_exception(self, error: BaseException) -> None:
        if isinstance(error, NoVector):
            error = failure_of(error, self.inputs, self.packed.work)
        self.cached.crash(self.flight, error if isinstance(error, Exception) else None)
        self.end()
        if not self.has_left:
            self.calls.cancellations.pop(self.call.number, None)
            self.calls.fail(self.call.number, error, self.lease.state if self.lease is not None else None)

    def rows(self) -> list[bytes]:
        """The row of each input. Raises Unembeddable if a long input's windows cancel each other out."""
        plan, windows = self.packed.work, self.work.rows
        rows = self.local.join(windows, plan, normalize=self.call.normalize)  # type: ignore[arg-type]  # no sparse encoder is here
        if rows is not windows:
            refuse_no_vector(rows, self.inputs)
        return [row.tobytes() for row in rows]

    @property
    def inputs(self) -> Inputs:
        """The inputs by the client's names, for errors."""
        return prepared_of(self.call, self.packed, self.local.describe().kind).inputs


def _charge(call: EmbedCall, lease: RateLimitLease, calls: FrontCalls, num_tokens: int, *, num_cached_tokens: int = 0) -> bool:
    """Charges the lease. Returns whether there was room; else the call is answered."""
    try:
        charge_now(lease, num_tokens, num_cached_tokens=num_cached_tokens)
    except GatewayError as error:
        calls.fail(call.number, error, lease.state)
        return False
    return True


def _answer(  # noqa: PLR0913 - named, most of them
    call: EmbedCall, rows: Sequence[bytes], calls: FrontCalls, lease: RateLimitLease | None, *,
    num_hits: int | None, num_cached_tokens: int = 0, stages: StageSeconds | None = None,
) -> None:  # fmt: skip
    """Answers with a row for each input, all of one width."""
    result = EmbedResult(
        number=call.number,
        dimensions=len(rows[0]) // FLOAT_BYTES,
        stages=stages or {},
        num_hits=num_hits,
        num_cached_tokens=num_cached_tokens,
        token_counts=call.token_counts,
        fingerprint=call.fingerprint,
        state=lease.state if lease is not None else None,
    )
    calls.answer(result, rows[0] if len(rows) == 1 else b"".join(rows))
