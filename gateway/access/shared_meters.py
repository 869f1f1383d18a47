"""What callers have used, kept by Redis or Valkey for several gateways: each charge is one script there, on that server's clock.

A server that is away costs no request its time-out: it is called away as soon as one question finds no answer, and tried again
every second in the background, on a new connection. While nobody asks, it is probed every PROBE_SECONDS. Nothing is kept there
for longer than it takes to pay back a debt, and nothing but public ids and numbers. A gateway that dies leaves its visits' places;
they are free again when their leases end.
"""

import asyncio
import hashlib
from contextlib import suppress
from importlib.resources import files

from gateway.access.limits import SECOND, Limits, Rate
from gateway.access.meters import Cost, MetersAway, Reading, Refusal
from gateway.access.outage import Outage
from gateway.access.redis_link import Address, Link, LinkLost, Refused, connected
from gateway.name_lookup import NameLookup

RETRY_SECONDS = 1.0
PROBE_SECONDS = 2.0
LEASE_SECONDS = 15.0  # of a visit's place, renewed three times in it
SCRIPT = files("gateway.access").joinpath("meters.lua").read_text(encoding="utf-8")
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # the name Redis has for it
REFUSALS: tuple[Refusal | None, ...] = (None, "requests", "tokens", "concurrency")

Words = tuple[str | int, ...]


class SharedMeters:
    """Meters, as `meters` describes them."""

    def __init__(
        self,
        address: Address,
        *,
        timeout_seconds: float,
        lease_seconds: float = LEASE_SECONDS,
        told: Outage | None = None,
    ) -> None:
        """`told` hears of outages."""
        self.address = address
        self.timeout_seconds = timeout_seconds
        self.lease_seconds = lease_seconds
        self.told = told
        self.names = NameLookup()
        self.link: Link | None = None
        self.away_because = "not connected yet"
        self.renewed_at = 0.0
        self.running: dict[str, tuple[str, Limits]] = {}
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.connect()
        self.task = asyncio.create_task(self.watch(), name="meters")

    @property
    def outage(self) -> str | None:
        return self.away_because if self.link is None else None

    @property
    def is_well(self) -> bool:
        return self.task is None or not self.task.done()

    async def enter(self, caller: str, limits: Limits, visit: str, *, min_tokens: int) -> Reading:
        reading = await self.ask(caller, self.words(limits, "enter", visit, needed=Cost(1, min_tokens), charged=Cost(1)))
        if limits.max_concurrent_requests is not None and reading.refused is None:
            self.running[visit] = (caller, limits)
        return reading

    async def charge(self, caller: str, limits: Limits, num_tokens: int) -> Reading:
        cost = Cost(tokens=num_tokens)
        return await self.ask(caller, self.words(limits, "charge", "", needed=cost, charged=cost))

    async def owe(self, caller: str, limits: Limits, cost: Cost) -> None:
        await self.ask(caller, self.words(limits, "charge", "", charged=cost))

    def leave(self, caller: str, limits: Limits, visit: str, returned: Cost) -> None:
        self.running.pop(visit, None)
        is_heard = limits.max_concurrent_requests is not None or returned.requests or returned.tokens
        if self.link is not None and is_heard:  # also of a visit whose reply never came: it may have a place
            charged = Cost(-returned.requests, -returned.tokens)
            self.link.tell("EVALSHA", SCRIPT_SHA, 2, *keys_of(caller), *self.words(limits, "leave", visit, charged=charged))

    async def ask(self, caller: str, words: Words) -> Reading:
        link = self.link
        if link is None:
            raise MetersAway(self.away_because)
        arguments = (2, *keys_of(caller), *words)
        try:
            try:
                reply = await link.ask("EVALSHA", SCRIPT_SHA, *arguments)
            except Refused as error:
                if not str(error).startswith("NOSCRIPT"):
                    raise
                reply = await link.ask("EVAL", SCRIPT, *arguments)  # it forgot its scripts; this teaches it again
            refused, wait, requests_debt, tokens_debt = reply
        except (LinkLost, Refused) as error:
            link.close(str(error))  # READONLY, LOADING, OOM: another connection may find a server that can
            self.lose(link, str(error))
            raise MetersAway(self.away_because) from None
        return Reading(requests_debt, tokens_debt, REFUSALS[refused], wait)

    def words(self, limits: Limits, action: str, visit: str, *, needed: Cost = Cost(), charged: Cost = Cost()) -> Words:  # noqa: B008 - frozen
        return (
            *rate_words(limits.requests), needed.requests, charged.requests,
            *rate_words(limits.tokens), needed.tokens, charged.tokens,
            action, visit, limits.max_concurrent_requests or 0, round(self.lease_seconds * SECOND),
        )  # fmt: skip

    async def watch(self) -> None:
        """Connects again what was lost, notices a server that hangs, and renews the leases of what runs."""
        while True:
            link = self.link
            if link is None:
                await asyncio.sleep(RETRY_SECONDS)
                await self.connect()
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(min(PROBE_SECONDS, self.lease_seconds / 3)):
                    await link.lost.wait()
            if not link.lost.is_set():
                await self.probe(link)
            if link.lost.is_set():
                self.lose(link, link.lost_because)
            elif link.loop.time() - self.renewed_at >= self.lease_seconds / 3:
                self.renew()

    async def connect(self) -> None:
        try:
            link = await connected(self.address, self.timeout_seconds, self.names)
            await link.ask("SCRIPT", "LOAD", SCRIPT)
        except (LinkLost, Refused) as error:
            self.away(str(error))
            return
        await self.probe(link)
        if link.lost.is_set():
            self.away(link.lost_because)
            return
        self.link = link
        if self.told is not None:
            self.told.end()
        self.renew()

    async def probe(self, link: Link) -> None:
        """Runs the script for nobody: only a server that may write can do what it will be asked. One that cannot loses the link."""
        try:
            await link.ask("EVALSHA", SCRIPT_SHA, 2, *keys_of(""), *self.words(Limits(), "leave", ""))
        except Refused as error:
            if not str(error).startswith("NOSCRIPT"):  # it forgot its scripts, and is taught again by the next question
                link.close(str(error))
        except LinkLost:
            pass

    def lose(self, link: Link, reason: str) -> None:
        if self.link is link:
            self.link = None
            self.away(reason)

    def away(self, reason: str) -> None:
        self.away_because = reason
        if self.told is not None:
            self.told.begin(reason)

    def renew(self) -> None:
        if self.link is None:
            return
        self.renewed_at = self.link.loop.time()
        for visit, (caller, limits) in self.running.items():
            if self.link is not None:
                self.link.tell("EVALSHA", SCRIPT_SHA, 2, *keys_of(caller), *self.words(limits, "renew", visit))

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        if self.link is not None:
            self.link.transport.close()  # after what was told has left
            self.link = None


def keys_of(caller: str) -> tuple[str, str]:
    return f"gateway:{{{caller}}}:meters", f"gateway:{{{caller}}}:visits"


def rate_words(rate: Rate | None) -> Words:
    return (rate.per_minute, rate.burst, rate.max_cost) if rate is not None else (0, 0, 0)
