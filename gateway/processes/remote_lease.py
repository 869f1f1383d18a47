"""A lease whose limits are counted in the engine process. A request of a caller without limits sends nothing for it."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from gateway.access.keys.key import Allowance, Caller
from gateway.access.limits.concurrency_queue import OnDisconnect
from gateway.access.limits.gcra import RateLimits, limits_of
from gateway.calls.engine_message import BudgetCall, EnterLease, ExitLease
from gateway.calls.failure import failure_of
from gateway.calls.message import CancelCall
from gateway.config import LimitSettings
from gateway.errors import ClientGone, EngineUnavailable, GatewayError
from gateway.processes.engine_client import ANSWER_SECONDS, EngineClient
from gateway.processes.known_limits import KnownLimits

if TYPE_CHECKING:
    from gateway.access.limits.local_store import RateState


class RemoteLimiter:
    """Gives leases by the settings, which are those of the engine process."""

    def __init__(self, settings: LimitSettings, client: EngineClient) -> None:
        self.client = client
        self.known = KnownLimits()
        self.max_wait_seconds = settings.max_wait_seconds
        self.default = Allowance(
            requests_per_minute=settings.requests_per_minute,
            requests_burst=settings.requests_burst,
            tokens_per_minute=settings.tokens_per_minute,
            tokens_burst=settings.tokens_burst,
            max_concurrent_requests=settings.max_concurrent_requests,
        )

    def lease(self, caller: Caller, on_disconnect: OnDisconnect | None = None) -> "RemoteLease":
        limits = limits_of(caller.allowance, self.default)
        return RemoteLease(self, caller, limits, on_disconnect)


class RemoteLease:
    """Entering raises what RateLimitLease raises, InsufficientQuota, and EngineUnavailable.

    `number` is the lease's in the engine process, 0 for none. Tokens are charged by the call that embeds them, which has this
    number. While it `is_deferred` nothing has entered it: the call that embeds will, or else the end of the request. `kept` are the
    calls whose prepared inputs the engine process keeps; those that are never embedded are given up at the end.
    """

    def __init__(self, limiter: RemoteLimiter, caller: Caller, limits: RateLimits, on_disconnect: OnDisconnect | None) -> None:
        self.client = limiter.client
        self.known = limiter.known
        self.caller = caller
        self.limits = limits
        self.on_disconnect = on_disconnect
        self.max_seconds = limiter.max_wait_seconds + ANSWER_SECONDS
        self.last_state: RateState | None = None
        self.is_deferred = False
        self.number = 0
        self.num_bytes = 0
        self.waited_seconds = 0.0
        self.kept: set[int] = set()

    async def __aenter__(self) -> "RemoteLease":
        if self.caller.allowance.token_budget is not None:
            await self.client.call(BudgetCall, caller=self.caller, within_seconds=ANSWER_SECONDS)
        if not self.limits.is_none:
            self.client.refuse_unusable()
            self.is_deferred = self.known.has_room(self.caller.public_id, self.limits)
            if not self.is_deferred:
                await self.enter()
        return self

    @property
    def state(self) -> "RateState | None":
        return self.last_state

    @state.setter
    def state(self, state: "RateState | None") -> None:
        self.last_state = state
        if state is not None:
            self.known.tell(self.caller.public_id, state)

    async def enter(self) -> None:
        """Enters it by a call of its own, which waits for the caller's turn."""
        self.is_deferred = False
        number = self.client.channel.new_number()
        try:
            answer, _ = await self.client.call(
                EnterLease,
                number=number,
                gone=self.on_disconnect,
                charged=self,
                caller=self.caller,
                within_seconds=self.max_seconds,
            )
        except BaseException as error:
            if not isinstance(error, GatewayError) or isinstance(error, EngineUnavailable):  # it may be entered by now, or later
                self.send_exit(number, error)
            raise
        self.number, self.waited_seconds = number, answer.waited_seconds

    def enter_by(self, number: int) -> Caller:
        """Lets call `number` enter it. Returns the caller, whom that call has to name."""
        self.is_deferred, self.number = False, number
        return self.caller

    async def charge(self, num_tokens: int, *, num_cached_tokens: int = 0) -> None:
        """Does nothing: the call that embeds the tokens charges them."""

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number in self.kept:
            self.client.send(CancelCall(number=number))
        if self.is_deferred:
            await self.enter_late(error)
        if not self.number:
            return
        if isinstance(error, GatewayError) and self.client.takes_calls:
            await self.exit(error)
        else:
            self.send_exit(self.number, error)

    async def enter_late(self, error: BaseException | None) -> None:
        """The request is over, and no call has entered it: it counts all the same, and its reply tells the state."""
        if error is None or isinstance(error, GatewayError):
            with suppress(GatewayError):
                await self.enter()
        else:
            number = self.client.channel.new_number()
            self.enter_by(number)
            self.client.send(EnterLease(number=number, caller=self.caller))

    async def exit(self, error: GatewayError) -> None:
        """Ends the lease, and waits for what the error cost or was refunded: the reply tells it."""
        name, attributes = failure_of(error)
        with suppress(GatewayError):
            await self.client.call(
                ExitLease,
                charged=self,
                within_seconds=ANSWER_SECONDS,
                lease=self.number,
                num_bytes=self.num_bytes,
                error=name,
                attributes=attributes,
            )

    def send_exit(self, number: int, error: BaseException | None) -> None:
        is_cancelled = isinstance(error, asyncio.CancelledError)
        name = "" if error is None or is_cancelled else type(error).__name__
        if name and not isinstance(error, ClientGone | GatewayError):
            name = "InternalError"
        is_urgent = self.limits.max_concurrent_requests is not None  # another request may wait for its slot
        ending = ExitLease(lease=number, num_bytes=self.num_bytes, error=name, is_cancelled=is_cancelled)
        self.client.send(ending, is_urgent=is_urgent)
