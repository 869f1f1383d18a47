"""Rate-limit state in Redis or Valkey, shared by several gateways: each charge is one atomic script, on that server's clock.

One command without a reply marks the server unavailable, so later requests do not wait for the time-out. A background task then
reconnects, every second or two. It also probes the connection every PROBE_SECONDS. The server stores only public ids and numbers,
each no longer than its debt. Concurrency slots are leases: if a gateway dies, its slots are free again when the leases expire.
"""

import asyncio
import hashlib
from contextlib import suppress
from importlib.resources import files

from gateway.access.limits.gcra import SECOND, Rate, RateLimits
from gateway.access.limits.local_store import Cost, RateLimitStoreUnavailable, RateState, Refusal
from gateway.access.limits.redis_connection import RedisAddress, RedisConnection, RedisConnectionLost, RedisError, open_connection
from gateway.access.outage import StoreOutage
from gateway.background import BackgroundTask
from gateway.backoff import Backoff
from gateway.name_lookup import NameLookup

RETRIES = Backoff(first_seconds=0.5, max_seconds=2.0)
PROBE_SECONDS = 2.0
LEASE_SECONDS = 15.0  # of a concurrency slot; renewed three times in that time
SCRIPT = files("gateway.access.limits").joinpath("gcra.lua").read_text(encoding="utf-8")
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # Redis' name for the script
REFUSALS: tuple[Refusal | None, ...] = (None, "requests", "tokens", "concurrency")

Arguments = tuple[str | int, ...]


class RedisRateLimitStore:
    """A RateLimitStore on one Redis server, shared by many gateways."""

    def __init__(
        self,
        address: RedisAddress,
        *,
        timeout_seconds: float,
        lease_seconds: float = LEASE_SECONDS,
        outage_log: StoreOutage | None = None,
    ) -> None:
        """`outage_log` reports outages."""
        self.address = address
        self.timeout_seconds = timeout_seconds
        self.lease_seconds = lease_seconds
        self.outage_log = outage_log
        self.names = NameLookup()
        self.connection: RedisConnection | None = None
        self.unavailable_reason = "not connected yet"
        self.renewed_at = 0.0
        self.running: dict[str, tuple[str, RateLimits]] = {}
        self.background = BackgroundTask("limits", self.watch)

    async def start(self) -> None:
        await self.connect()
        self.background.start()

    @property
    def outage(self) -> str | None:
        return self.unavailable_reason if self.connection is None else None

    @property
    def is_alive(self) -> bool:
        return self.background.death is None

    async def enter(self, caller: str, limits: RateLimits, lease: str, *, min_tokens: int) -> RateState:
        state = await self.ask(caller, self.arguments(limits, "enter", lease, needed=Cost(1, min_tokens), charged=Cost(1)))
        if limits.max_concurrent_requests is not None and state.refused is None:
            self.running[lease] = (caller, limits)
        return state

    async def charge(self, caller: str, limits: RateLimits, num_tokens: int) -> RateState:
        cost = Cost(tokens=num_tokens)
        return await self.ask(caller, self.arguments(limits, "charge", "", needed=cost, charged=cost))

    async def owe(self, caller: str, limits: RateLimits, cost: Cost) -> None:
        await self.ask(caller, self.arguments(limits, "charge", "", charged=cost))

    def leave(self, caller: str, limits: RateLimits, lease: str, returned: Cost) -> None:
        self.running.pop(lease, None)
        is_heard = limits.max_concurrent_requests is not None or returned.requests or returned.tokens
        if self.connection is not None and is_heard:  # also if the reply to `enter` never came: the slot may be taken
            charged = Cost(-returned.requests, -returned.tokens)
            self.connection.send_nowait(
                "EVALSHA", SCRIPT_SHA, 2, *keys_of(caller), *self.arguments(limits, "leave", lease, charged=charged)
            )

    async def ask(self, caller: str, words: Arguments) -> RateState:
        connection = self.connection
        if connection is None:
            raise RateLimitStoreUnavailable(self.unavailable_reason)
        arguments = (2, *keys_of(caller), *words)
        try:
            try:
                reply = await connection.ask("EVALSHA", SCRIPT_SHA, *arguments)
            except RedisError as error:
                if not str(error).startswith("NOSCRIPT"):
                    raise
                reply = await connection.ask("EVAL", SCRIPT, *arguments)  # the server lost its scripts; EVAL loads this one again
            refused, wait, requests_debt, tokens_debt = reply
        except (RedisConnectionLost, RedisError) as error:
            connection.close(str(error))  # READONLY, LOADING, OOM: a new connection may reach a server that works
            self.lose(connection, str(error))
            raise RateLimitStoreUnavailable(self.unavailable_reason) from None
        return RateState(requests_debt, tokens_debt, REFUSALS[refused], wait)

    def arguments(self, limits: RateLimits, action: str, lease: str, *, needed: Cost = Cost(), charged: Cost = Cost()) -> Arguments:  # noqa: B008 - frozen
        return (
            *_rate_arguments(limits.requests), needed.requests, charged.requests,
            *_rate_arguments(limits.tokens), needed.tokens, charged.tokens,
            action, lease, limits.max_concurrent_requests or 0, round(self.lease_seconds * SECOND),
        )  # fmt: skip

    async def watch(self) -> None:
        """Reconnects, probes for a server that hangs, and renews the leases of running requests (heartbeat)."""
        num_failures = 0
        while True:
            connection = self.connection
            if connection is None:
                num_failures += 1
                await asyncio.sleep(RETRIES.pause_seconds(num_failures))
                await self.connect()
                continue
            num_failures = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(min(PROBE_SECONDS, self.lease_seconds / 3)):
                    await connection.lost.wait()
            if not connection.lost.is_set():
                await self.probe(connection)
            if connection.lost.is_set():
                self.lose(connection, connection.lost_because)
            elif connection.loop.time() - self.renewed_at >= self.lease_seconds / 3:
                self.renew()

    async def connect(self) -> None:
        try:
            connection = await open_connection(self.address, self.timeout_seconds, self.names)
            await connection.ask("SCRIPT", "LOAD", SCRIPT)
        except (RedisConnectionLost, RedisError) as error:
            self.mark_unavailable(str(error))
            return
        await self.probe(connection)
        if connection.lost.is_set():
            self.mark_unavailable(connection.lost_because)
            return
        self.connection = connection
        if self.outage_log is not None:
            self.outage_log.end()
        self.renew()

    async def probe(self, connection: RedisConnection) -> None:
        """Runs the script for an empty caller, which needs a server that can write. Closes the connection if that fails."""
        try:
            await connection.ask("EVALSHA", SCRIPT_SHA, 2, *keys_of(""), *self.arguments(RateLimits(), "leave", ""))
        except RedisError as error:
            if not str(error).startswith("NOSCRIPT"):  # the server lost its scripts; the next command loads this one again
                connection.close(str(error))
        except RedisConnectionLost:
            pass

    def lose(self, connection: RedisConnection, reason: str) -> None:
        if self.connection is connection:
            self.connection = None
            self.mark_unavailable(reason)

    def mark_unavailable(self, reason: str) -> None:
        self.unavailable_reason = reason
        if self.outage_log is not None:
            self.outage_log.begin(reason)

    def renew(self) -> None:
        if self.connection is None:
            return
        self.renewed_at = self.connection.loop.time()
        for lease, (caller, limits) in self.running.items():
            if self.connection is not None:
                self.connection.send_nowait("EVALSHA", SCRIPT_SHA, 2, *keys_of(caller), *self.arguments(limits, "renew", lease))

    async def close(self) -> None:
        await self.background.close()
        if self.connection is not None:
            self.connection.transport.close()  # after the sent commands have left
            self.connection = None


def keys_of(caller: str) -> tuple[str, str]:
    return f"gateway:{{{caller}}}:meters", f"gateway:{{{caller}}}:visits"


def _rate_arguments(rate: Rate | None) -> Arguments:
    return (rate.per_minute, rate.burst, rate.max_cost) if rate is not None else (0, 0, 0)
