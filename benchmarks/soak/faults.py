"""What is broken, one thing after another, in a shuffled order that the seed decides."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx2

from benchmarks.program import MODEL
from benchmarks.soak.scene import Scene

AWAY_SECONDS = 3.0
REVOKED_SECONDS = 2.0  # after which a revoked key opens nothing, in no process
GRACE_SECONDS = 1.0  # of a restart, for connections that were just being made

Fault = Callable[[], Awaitable[None]]


class Faults:
    """`events` are (moment, name); `complaints` what a fault itself found wrong."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.events: list[tuple[float, str]] = []
        self.complaints: list[str] = []
        self.restarts: list[tuple[float, float]] = []  # from, until; the last one open while it lasts
        self.exit_codes: Counter[int] = Counter()

    @property
    def known(self) -> dict[str, Fault]:
        faults: dict[str, Fault] = {
            "a device thread killed": self.device_thread_killed,
            "upstream killed": self.upstream_killed,
            "upstream frozen": self.upstream_frozen,
            "reload": self.reload,
            "key revoked": self.key_revoked,
            "restart": self.restart,
        }
        return faults | ({"Redis killed": self.redis_killed, "Redis frozen": self.redis_frozen} if self.scene.redis else {})

    def is_unavailable(self, began: float) -> bool:
        """Whether a request that began then, and just failed, met a restart."""
        now = time.monotonic()
        return any(start <= now and began <= end + GRACE_SECONDS for start, end in self.restarts)

    async def run(self, seed: int, pause_seconds: float, until: float) -> None:
        """Begins none that could not be over in time."""
        chance = random.Random(seed)  # noqa: S311 - a shuffle
        while True:
            for name in chance.sample(list(self.known), len(self.known)):
                await asyncio.sleep(pause_seconds)
                if time.monotonic() > until:
                    return
                self.events.append((time.monotonic(), name))
                await self.known[name]()

    async def device_thread_killed(self) -> None:
        self.scene.gateway.send(signal.SIGUSR2)

    async def upstream_killed(self) -> None:
        await asyncio.to_thread(self.scene.upstream.kill)
        await asyncio.sleep(AWAY_SECONDS)
        self.scene.upstream.start()

    async def upstream_frozen(self) -> None:
        self.scene.upstream.send(signal.SIGSTOP)
        await asyncio.sleep(AWAY_SECONDS)
        self.scene.upstream.send(signal.SIGCONT)

    async def redis_killed(self) -> None:
        if self.scene.redis is not None:
            await asyncio.to_thread(self.scene.redis.kill)
            await asyncio.sleep(AWAY_SECONDS)
            self.scene.redis.start()

    async def redis_frozen(self) -> None:
        if self.scene.redis is not None:
            self.scene.redis.send(signal.SIGSTOP)
            await asyncio.sleep(AWAY_SECONDS)
            self.scene.redis.send(signal.SIGCONT)

    async def reload(self) -> None:
        self.scene.write_config()
        self.scene.gateway.send(signal.SIGHUP)

    async def restart(self) -> None:
        began = time.monotonic()
        self.restarts.append((began, float("inf")))
        self.exit_codes[await asyncio.to_thread(self.scene.gateway.stop)] += 1
        self.scene.gateway.start()
        await asyncio.to_thread(self.scene.gateway.wait_until_ready)
        self.restarts[-1] = (began, time.monotonic())

    async def key_revoked(self) -> None:
        """One that works, and must not any more."""
        caller = await asyncio.to_thread(self.scene.new_caller, "short-lived", MODEL)
        await asyncio.sleep(REVOKED_SECONDS)
        if (status := await self.status_of(caller.key)) == 401:
            self.complaints.append("a new key was refused")
        await asyncio.to_thread(self.scene.command, "keys", "revoke", caller.public_id)
        await asyncio.sleep(REVOKED_SECONDS)
        status = await self.status_of(caller.key)
        if status not in {401, 503}:
            self.complaints.append(f"a revoked key was answered {status}")

    async def status_of(self, key: str) -> int:
        async with httpx2.AsyncClient(base_url=self.scene.url, timeout=60) as http:
            reply = await http.post("/v1/embeddings", json={"model": MODEL, "input": "a"}, headers={"api-key": key})
            return reply.status_code
