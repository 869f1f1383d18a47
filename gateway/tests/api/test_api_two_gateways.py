"""Two gateway processes and one Redis: what one lets through counts in the other, and Redis may die or hang in the middle of it."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from gateway.testing.redis_server import RedisServer
from gateway.testing.socket_client import BOUND_SECONDS, connected, got

pytest.importorskip("hiredis", reason="the extra `redis` is not installed")

KEY = "a-key-of-more-than-24-characters"
NUM_CONNECTIONS = 200
PER_MINUTE, BURST = 600, 100
LIMITED = {"GATEWAY__LIMITS__REQUESTS_PER_MINUTE": str(PER_MINUTE)}
CONTENT = json.dumps({"model": "m", "input": "one two"}).encode()
REQUEST = (
    f"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(CONTENT)}\r\n\r\n".encode()
    + CONTENT
)


@pytest.fixture
def redis(tmp_path):
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def gateways(redis, folder, *, count=2, **settings):
    """The addresses of so many processes that are ready."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")},
        "GATEWAY__SERVER__PORT": "0",
        "GATEWAY__MODELS": '[{"name": "m", "backend": "fake"}]',
        "GATEWAY_API_KEYS": KEY,
        "GATEWAY_DATA_DIR": str(folder),
        "REDIS_URL": redis.url,
        "GATEWAY__LIMITS__REDIS_URL": '{"env": "REDIS_URL"}',
        **settings,
    }
    processes = []
    try:
        for number in range(count):
            log = folder / f"log{number}"
            command = [sys.executable, "-m", "gateway.tests.api.program"]
            with log.open("wb") as output:
                processes.append((subprocess.Popen(command, cwd=folder, env=environment, stderr=output), log))  # noqa: ASYNC220 - it takes a moment
        yield [await address_of(*process) for process in processes]
    finally:
        for process, _ in processes:
            process.terminate()
        codes = [process.wait(BOUND_SECONDS) for process, _ in processes]
    assert codes == [0] * count
    assert not any(b"internal_error" in log.read_bytes() for _, log in processes)


async def address_of(process, log):
    async with asyncio.timeout(BOUND_SECONDS):
        while not (found := re.search(r'"url":"http://127\.0\.0\.1:(\d+)/v1"', log.read_text())):
            assert process.poll() is None, log.read_text()
            await asyncio.sleep(0.02)
    return "127.0.0.1", int(found[1])


class Load:
    """Clients that ask without pause, over both gateways. `seen` are statuses; None stands for 200 without a word of limits."""

    def __init__(self, addresses):
        self.addresses = addresses
        self.seen = Counter()
        self.latest = Counter()

    async def __aenter__(self):
        self.began = time.monotonic()
        self.tasks = [asyncio.create_task(self.ask(self.addresses[number % 2])) for number in range(NUM_CONNECTIONS)]
        return self

    async def ask(self, address):
        async with connected(address) as (reader, writer):
            while True:
                writer.write(REQUEST)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
                status = int(head[9:12])
                is_limited = status != 200 or b"x-ratelimit-limit-requests: %d" % PER_MINUTE in head
                self.seen[status if is_limited else None] += 1
                self.latest[status if is_limited else None] += 1

    async def until(self, is_true):
        """Goes on until that is so of the replies from now on. A client that had no reply ends the wait too."""
        self.latest.clear()
        async with asyncio.timeout(BOUND_SECONDS):
            while not is_true(self.latest):
                assert not [task.exception() for task in self.tasks if task.done()]
                await asyncio.sleep(0.01)

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.seconds = time.monotonic() - self.began


async def failures(addresses):
    texts = [(await got(address, "/metrics")).body.decode() for address in addresses]
    return sum(
        float(number) for text in texts for number in re.findall(r"^gateway_limiter_failures_total\S* (\S+)$", text, re.MULTILINE)
    )


async def test_two_gateways_let_no_more_through_than_one_limit(redis, tmp_path):
    patient = {"GATEWAY__LIMITS__REDIS_TIMEOUT_SECONDS": "10"}  # a machine that does much else must not look like a dead Redis
    async with gateways(redis, tmp_path, **LIMITED, **patient) as addresses:
        async with Load(addresses) as load:
            await load.until(lambda latest: latest[200] >= BURST + 30 and latest[429] > 1000)
        assert set(load.seen) == {200, 429}
        assert load.seen[200] <= BURST + PER_MINUTE / 60 * load.seconds + 1
        assert await failures(addresses) == 0


@pytest.mark.parametrize(("harm", "mend"), [(RedisServer.kill, RedisServer.start), (RedisServer.halt, RedisServer.go_on)])
async def test_redis_may_die_or_hang_in_the_middle_and_is_found_again(redis, tmp_path, harm, mend):
    async with gateways(redis, tmp_path, **LIMITED, GATEWAY__LIMITS__ON_LIMITER_FAILURE="allow") as addresses:
        async with Load(addresses) as load:
            await load.until(lambda latest: latest[429] > 100)
            harm(redis)
            await load.until(lambda latest: latest[None] > 1000)  # let through, and it says so by saying nothing
            mend(redis)
            await load.until(lambda latest: latest[429] > 100)
        assert set(load.seen) == {200, 429, None}
        assert await failures(addresses) >= 1000


@pytest.mark.parametrize(("harm", "mend"), [(RedisServer.kill, RedisServer.start), (RedisServer.halt, RedisServer.go_on)])
async def test_without_redis_each_gateway_applies_the_whole_limit_and_nobody_has_a_burst_when_it_is_back(
    redis, tmp_path, harm, mend
):
    async with gateways(redis, tmp_path, **LIMITED) as addresses:
        async with Load(addresses) as load:
            await load.until(lambda latest: latest[429] > 100)
            harm(redis)
            await until_without(addresses, {"limits": "local"})
            await load.until(lambda latest: latest[429] > 1000)
            mend(redis)
            await until_without(addresses, None)
            await load.until(lambda latest: latest[429] > 1000)
        assert set(load.seen) == {200, 429}
        # A burst in Redis, one in each gateway, and what each lets through a second; none when Redis is back.
        assert load.seen[200] <= 3 * BURST + 2 * PER_MINUTE / 60 * load.seconds + 4
        assert await failures(addresses) >= 1000
    for number in range(2):
        events = [json.loads(line) for line in (tmp_path / f"log{number}").read_text().splitlines()]
        told = [event for event in events if event["event"].startswith("limiter_")]
        assert [event["event"] for event in told] == ["limiter_unavailable", "limiter_available"]
        assert told[0]["hint"] == "each gateway applies the whole limit by itself"


async def until_without(addresses, expected):
    """Returns when every gateway says on `/readyz` what it goes on without; it stays ready throughout."""
    async with asyncio.timeout(BOUND_SECONDS):
        for address in addresses:
            while (reply := await got(address, "/readyz")).json().get("without") != expected:
                assert reply.status == 200
                await asyncio.sleep(0.05)


async def test_while_redis_is_unavailable_requests_are_refused_if_so_configured(redis, tmp_path):
    async with gateways(redis, tmp_path, **LIMITED, GATEWAY__LIMITS__ON_LIMITER_FAILURE="deny") as addresses:
        async with Load(addresses) as load:
            await load.until(lambda latest: latest[429] > 100)
            redis.kill()
            await load.until(lambda latest: latest[503] > 500)
            redis.start()
            await load.until(lambda latest: latest[200] + latest[429] > 100)
        assert None not in load.seen


async def test_a_gateway_starts_without_its_redis_and_finds_it_later(redis, tmp_path):
    redis.kill()
    async with gateways(redis, tmp_path, **LIMITED) as addresses, Load(addresses) as load:
        await load.until(lambda latest: latest[429] > 100)
        redis.start()
        await until_without(addresses, None)
        await load.until(lambda latest: latest[429] > 100)
    assert set(load.seen) == {200, 429}
