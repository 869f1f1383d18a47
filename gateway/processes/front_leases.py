"""The rate limit leases of one front. They live in the engine process, so that limits are exact over all fronts."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.access.keys.key import Caller
from gateway.access.limits.limiter import RateLimitLease
from gateway.access.limits.local_store import LocalRateLimitStore
from gateway.calls.engine_message import ChargeLease, EnterLease, ExitLease, LeaseState
from gateway.calls.failure import error_of
from gateway.errors import ClientGone, GatewayError
from gateway.processes.front_calls import FrontCalls
from gateway.reload.generation import Generation

Result = TypeVar("Result")


class FrontLeases:
    """A lease has the number of the call that entered it. Its generation stays open until the lease ends."""

    def __init__(self, calls: FrontCalls) -> None:
        self.calls = calls
        self.entered: dict[int, tuple[RateLimitLease, Generation]] = {}

    def enter(self, call: EnterLease, generation: Generation) -> None:
        """Enters a lease for one request, and answers with its state."""

        def answer(lease: RateLimitLease) -> None:
            self.calls.answer(LeaseState(number=call.number, state=lease.state, waited_seconds=lease.waited_seconds))

        self.acquire(call.number, call.caller, generation, then=answer)

    def acquire(self, number: int, caller: Caller, generation: Generation, *, then: Callable[[RateLimitLease], None]) -> None:
        """Enters a lease for one request, and calls `then` with it; a refusal is the answer to call `number`.

        It may wait for its caller's turn, until the call is cancelled.
        """
        lease = generation.limiter.lease(caller)
        if _may_wait(lease):
            self.calls.launch(number, self.wait(number, lease, generation, then))
            return
        try:
            _run_through(lease.__aenter__())
        except GatewayError as error:
            self.calls.fail(number, error, lease.state)
        else:
            self.keep(number, lease, generation)
            then(lease)

    async def wait(
        self, number: int, lease: RateLimitLease, generation: Generation, then: Callable[[RateLimitLease], None]
    ) -> None:
        try:
            await lease.__aenter__()
        except GatewayError as error:
            self.calls.fail(number, error, lease.state)
        else:
            self.keep(number, lease, generation)
            then(lease)

    def keep(self, number: int, lease: RateLimitLease, generation: Generation) -> None:
        generation.hold()
        self.entered[number] = (lease, generation)

    def find(self, number: int) -> RateLimitLease | None:
        """The lease of this number, if it was entered and not ended."""
        found = self.entered.get(number)
        return found[0] if found is not None else None

    def find_local(self, number: int) -> RateLimitLease | None:
        """The same, if its limits are counted in this process: charging it never waits."""
        lease = self.find(number)
        return lease if lease is not None and isinstance(lease.limiter.store, LocalRateLimitStore) else None

    async def charge(self, call: ChargeLease) -> None:
        lease = self.find(call.lease)
        if lease is not None:
            try:
                await lease.charge(call.num_tokens, num_cached_tokens=call.num_cached_tokens)
            except GatewayError as error:
                self.calls.fail(call.number, error, lease.state)
                return
        self.calls.answer(LeaseState(number=call.number, state=lease.state if lease is not None else None))

    def exit(self, message: ExitLease) -> None:
        """Ends a lease: what becomes of its charges depends on how its request ended."""
        self.calls.cancel(message.lease)  # it may still wait for its turn
        found = self.entered.pop(message.lease, None)
        state = None
        if found is not None:
            lease, generation = found
            lease.num_bytes = message.num_bytes
            _end(lease, _ending_of(message))
            generation.release()
            state = lease.state
        if message.number:
            self.calls.answer(LeaseState(number=message.number, state=state))

    def close(self) -> None:
        """The front is gone: ends its leases as a shutdown does."""
        for lease, generation in self.entered.values():
            _end(lease, asyncio.CancelledError())
            generation.release()
        self.entered.clear()


def charge_now(lease: RateLimitLease, num_tokens: int, *, num_cached_tokens: int = 0) -> None:
    """Charges a lease of `find_local`. Raises RateLimited or RequestExceedsLimit."""
    _run_through(lease.charge(num_tokens, num_cached_tokens=num_cached_tokens))


def _may_wait(lease: RateLimitLease) -> bool:
    """Whether entering may wait: for another process that has the limits' state, or for the caller's turn."""
    limit_store, most, caller = lease.limiter.store, lease.limits.max_concurrent_requests, lease.caller.public_id
    if not isinstance(limit_store, LocalRateLimitStore):
        return True
    line = lease.limiter.queue.lines.get(caller)
    if most is None or line is None:
        return False
    return bool(line.waiters) or line.num_running >= most or limit_store.num_running(caller) >= most


def _end(lease: RateLimitLease, error: BaseException | None) -> None:
    _run_through(lease.__aexit__(type(error) if error is not None else None, error, None))


def _run_through(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine that never waits, without a task. Raises what it raises."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: Result = ended.value
        return result
    work.close()
    raise RuntimeError("a coroutine waits that was known not to")


def _ending_of(message: ExitLease) -> BaseException | None:
    if message.is_cancelled:
        return asyncio.CancelledError()
    if message.error == ClientGone.__name__:
        return ClientGone()
    return error_of(message.error, message.attributes) if message.error else None
