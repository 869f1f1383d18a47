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

if TYPE_CHECKING:
    from gateway.access.limits.local_store import RateState


class RemoteLimiter:
    """Gives leases by the settings, which are those of the engine process."""

    def __init__(self, settings: LimitSettings, client: EngineClient) -> None:
        self.client = client
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
        return RemoteLease(self.client, caller, limits, on_disconnect, max_wait_seconds=self.max_wait_seconds)


class RemoteLease:
    """Entering raises what RateLimitLease raises, InsufficientQuota, and EngineUnavailable.

    `number` is the lease's in the engine process, 0 for none. Tokens are charged by the call that embeds them, which has this
    number. `kept` are the calls whose prepared inputs the engine process keeps; those that are never embedded are given up at the
    end.
    """

    def __init__(
        self,
        client: EngineClient,
        caller: Caller,
        limits: RateLimits,
        on_disconnect: OnDisconnect | None,
        *,
        max_wait_seconds: float,
    ) -> None:
        self.client = client
        self.caller = caller
        self.limits = limits
        self.on_disconnect = on_disconnect
        self.max_seconds = max_wait_seconds + ANSWER_SECONDS
        self.state: RateState | None = None
        self.number = 0
        self.num_bytes = 0
        self.waited_seconds = 0.0
        self.kept: set[int] = set()

    async def __aenter__(self) -> "RemoteLease":
        if self.caller.allowance.token_budget is not None:
            await self.client.call(BudgetCall, caller=self.caller, within_seconds=ANSWER_SECONDS)
        if not self.limits.is_none:
            self.client.refuse_unusable()
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
                if not isinstance(error, GatewayError) or isinstance(
                    error, EngineUnavailable
                ):  # it may be entered by now, or later
                    self.send_exit(number, error)
                raise
            self.number, self.waited_seconds = number, answer.waited_seconds
        return self

    async def charge(self, num_tokens: int, *, num_cached_tokens: int = 0) -> None:
        """Does nothing: the call that embeds the tokens charges them."""

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number in self.kept:
            self.client.send(CancelCall(number=number))
        if not self.number:
            return
        if isinstance(error, GatewayError) and self.client.takes_calls:
            await self.exit(error)
        else:
            self.send_exit(self.number, error)

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
        self.client.send(ExitLease(lease=number, num_bytes=self.num_bytes, error=name, is_cancelled=is_cancelled))
