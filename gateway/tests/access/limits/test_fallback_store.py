"""Shared meters that come and go: the whole limit is applied meanwhile, and nobody gains by the change."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.access.limits.fallback_store import FallbackRateLimitStore
from gateway.access.limits.gcra import MINUTE, Rate, RateLimits
from gateway.access.limits.local_store import Cost, LocalRateLimitStore, RateLimitStoreUnavailable
from gateway.testing.fakes import FakeClock
from gateway.testing.redis_server import RedisServer
from gateway.testing.swallowing_proxy import SwallowingProxy

LIMITS = RateLimits(Rate(60, 10), Rate(600, 100), max_concurrent_requests=3)


class Elsewhere(LocalRateLimitStore):
    """Shared meters whose server is unavailable as long as `outage` has a reason."""

    async def enter(self, caller, limits, lease, *, min_tokens):
        self.refuse()
        return await super().enter(caller, limits, lease, min_tokens=min_tokens)

    async def charge(self, caller, limits, num_tokens):
        self.refuse()
        return await super().charge(caller, limits, num_tokens)

    async def owe(self, caller, limits, cost):
        self.refuse()
        await super().owe(caller, limits, cost)

    def refuse(self):
        if self.outage is not None:
            raise RateLimitStoreUnavailable(self.outage)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def shared(clock):
    return Elsewhere(clock)


@pytest.fixture
def meters(shared, clock):
    questions = []
    meters = FallbackRateLimitStore(shared, LocalRateLimitStore(clock), on_local=lambda: questions.append(1))
    meters.questions = questions
    return meters


async def entered(meters, lease, limits=LIMITS, caller="a"):
    return (await meters.enter(caller, limits, lease, min_tokens=1)).refused


async def test_while_the_server_is_there_it_is_asked_and_nothing_is_kept_here(meters, shared):
    assert await entered(meters, "v1") is None
    assert (await meters.charge("a", LIMITS, 30)).tokens_debt == 30 * MINUTE
    meters.leave("a", LIMITS, "v1", Cost())
    assert shared.num_running("a") == 0
    assert not meters.local.meters
    assert not meters.questions


async def test_while_it_is_unavailable_the_whole_limit_holds_here(meters, shared):
    shared.outage = "gone"
    unbounded = RateLimits(Rate(60, 10))
    assert [await entered(meters, f"v{number}", unbounded) for number in range(11)] == [None] * 10 + ["requests"]
    assert (await meters.charge("b", LIMITS, 100)).refused is None
    assert (await meters.charge("b", LIMITS, 1)).refused == "tokens"
    assert len(meters.questions) == 13


async def test_what_was_used_here_is_owed_there_once_and_nobody_has_a_second_burst(meters, shared):
    shared.outage = "gone"
    unbounded = RateLimits(Rate(60, 10), Rate(600, 100))
    for number in range(10):
        assert await entered(meters, f"v{number}", unbounded) is None
    await meters.charge("a", unbounded, 70)
    shared.outage = None
    assert await entered(meters, "next", unbounded) == "requests"
    state = await meters.charge("a", unbounded, 30)
    assert (state.refused, state.tokens_debt) == (None, 100 * MINUTE)
    assert (await meters.charge("a", unbounded, 1)).refused == "tokens"
    assert meters.local.debts("a", unbounded) is None


async def test_a_debt_that_could_not_be_told_is_still_owed(meters, shared):
    shared.outage = "gone"
    await meters.charge("a", LIMITS, 60)
    shared.outage = None
    shared.owe = unreachable
    assert (await meters.charge("a", LIMITS, 60)).refused == "tokens"  # asked here again, where 60 of 100 are gone
    del shared.owe
    assert (await meters.charge("a", LIMITS, 40)).tokens_debt == 100 * MINUTE


async def unreachable(*_):
    raise RateLimitStoreUnavailable("gone again")


async def test_a_place_taken_here_counts_when_the_server_is_back_and_is_freed_here(meters, shared):
    shared.outage = "gone"
    assert [await entered(meters, lease) for lease in ("v1", "v2")] == [None, None]
    shared.outage = None
    assert [await entered(meters, lease) for lease in ("v3", "v4")] == [None, "concurrency"]
    meters.leave("a", LIMITS, "v1", Cost())
    assert await entered(meters, "v5") is None
    for lease in ("v2", "v3", "v5"):
        meters.leave("a", LIMITS, lease, Cost())
    assert (meters.local.num_running("a"), shared.num_running("a"), meters.here) == (0, 0, set())


async def test_a_place_taken_there_is_freed_there_though_it_is_unavailable(meters, shared):
    assert await entered(meters, "v1") is None
    shared.outage = "gone"
    meters.leave("a", LIMITS, "v1", Cost())
    assert shared.num_running("a") == 0


async def test_what_is_given_back_goes_where_it_entered(meters, shared):
    shared.outage = "gone"
    assert await entered(meters, "v1") is None
    meters.leave("a", LIMITS, "v1", Cost(requests=1))
    assert meters.local.debts("a", LIMITS) is None


async def test_ten_minutes_without_the_server_are_ten_minutes_of_the_limit_and_no_more_after(meters, shared, clock):
    shared.outage = "gone"
    limits, num_served = RateLimits(Rate(60, 10)), 0
    for number in range(6000):
        num_served += await entered(meters, f"v{number}", limits) is None
        clock.advance(0.1)
    assert num_served == 10 + 599
    shared.outage = None
    clock.advance(1)
    assert [await entered(meters, f"w{number}", limits) for number in range(2)] == [None, "requests"]


async def test_a_server_that_hangs_with_nobody_asking_is_noticed_and_told_once_with_its_end(tmp_path):
    pytest.importorskip("hiredis", reason="the extra `redis` is not installed")
    from gateway.access.limits.redis_connection import address_of
    from gateway.access.limits.redis_store import RedisRateLimitStore
    from gateway.access.outage import StoreOutage

    shown = []
    with capture_logs() as lines:
        server = RedisServer(tmp_path)
        server.start()
        outage = StoreOutage("limiter", hint="what then", show=shown.append)
        shared = RedisRateLimitStore(address_of(server.url), timeout_seconds=0.2, lease_seconds=0.6, outage_log=outage)
        await shared.start()
        try:
            server.halt()
            await until(lambda: shared.outage is not None)
            assert shared.outage == "no answer within 0.2 s"
            server.go_on()
            await until(lambda: shared.outage is None)
        finally:
            await shared.close()
            server.kill()
    assert [line["event"] for line in lines] == ["limiter_unavailable", "limiter_available"]
    assert (lines[0]["reason"], lines[0]["hint"]) == ("no answer within 0.2 s", "what then")
    assert shown == [1, 0, 1]


async def test_a_server_that_may_only_be_read_is_unavailable(tmp_path):
    """A replica takes the connection and teaching, and refuses to write."""
    pytest.importorskip("hiredis", reason="the extra `redis` is not installed")
    from gateway.access.limits.redis_connection import address_of
    from gateway.access.limits.redis_store import RedisRateLimitStore

    server = RedisServer(tmp_path, "--replicaof", "127.0.0.1 1")
    server.start()
    shared = RedisRateLimitStore(address_of(server.url), timeout_seconds=1)
    await shared.start()
    try:
        assert "READONLY" in shared.outage
    finally:
        await shared.close()
        server.kill()


async def until(is_true):
    async with asyncio.timeout(30):
        while not is_true():
            await asyncio.sleep(0.01)


async def test_a_connection_that_is_swallowed_is_left_and_a_new_one_serves(tmp_path):
    pytest.importorskip("hiredis", reason="the extra `redis` is not installed")
    from gateway.access.limits.redis_connection import RedisAddress
    from gateway.access.limits.redis_store import RedisRateLimitStore

    server = RedisServer(tmp_path)
    server.start()
    with SwallowingProxy(server.port) as proxy:
        shared = RedisRateLimitStore(RedisAddress("localhost", proxy.port), timeout_seconds=0.2)
        meters = FallbackRateLimitStore(shared, LocalRateLimitStore(), on_local=lambda: None)
        await meters.start()
        try:
            assert await entered(meters, "v1") is None
            proxy.swallow()
            assert await entered(meters, "v2") is None  # here, after one time-out
            assert meters.outage == "no answer within 0.2 s"
            await until(lambda: meters.outage is None)
            assert await entered(meters, "v3") is None
            assert set(shared.running) == {"v1", "v3"}
            assert proxy.num_accepted == 2
        finally:
            await meters.close()
            server.kill()
