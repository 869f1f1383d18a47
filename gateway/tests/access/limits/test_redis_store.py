"""Meters in a real Redis: the same as those of one process, on Redis' clock; and Redis dying, hanging, forgetting, refusing."""

import asyncio
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.access.limits.gcra import MINUTE, SECOND, Rate, RateLimits, tokens_rate
from gateway.access.limits.local_store import Cost, LocalRateLimitStore, RateLimitStoreUnavailable, RateState
from gateway.errors import ConfigurationError
from gateway.name_lookup import NameLookup
from gateway.testing.programs import find_program
from gateway.testing.redis_server import BOUND_SECONDS, HINT, PROGRAMS, RedisServer

pytest.importorskip("hiredis", reason="the extra `redis` is not installed")

from gateway.access.limits.redis_connection import RedisAddress, address_of, open_connection
from gateway.access.limits.redis_store import REFUSALS, SCRIPT, RedisRateLimitStore, keys_of

LIMITS = RateLimits(Rate(600, 100), Rate(6000, 1000), max_concurrent_requests=3)
TIME = "redis.call('TIME')"


@pytest.fixture(scope="module")
def module_redis(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis(tmp_path):
    """One that a test may kill."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def opened(request):
    """Makes meters that have started."""
    made = []

    async def make(server, **options):
        made.append(RedisRateLimitStore(address_of(server.url), **{"timeout_seconds": 1.0, **options}))
        await made[-1].start()
        return made[-1]

    yield make
    for meters in made:
        await meters.close()


async def asked(server, *words):
    connection = await open_connection(address_of(server.url), 1.0, NameLookup())
    try:
        return await connection.ask(*words)
    finally:
        connection.close("done")


async def until(is_true):
    """Looks again and again; raises TimeoutError when it does not become true."""
    async with asyncio.timeout(BOUND_SECONDS):
        while not await is_true():
            await asyncio.sleep(0.01)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "charge", "leave"]),
        st.integers(-90 * SECOND, 90 * SECOND),
        st.integers(0, 1200) | st.integers(0, 7000),
    ),
    min_size=1,
    max_size=12,
)
ANY_LIMITS = st.builds(
    RateLimits,
    st.none() | st.builds(Rate, st.integers(1, 600), st.integers(1, 5)),
    st.none()
    | st.integers(1, 10**12).map(lambda number: tokens_rate(number, None))
    | st.builds(Rate, st.integers(1, 9000), st.integers(1, 900)),
    st.none() | st.integers(1, 3),
)
LARGER_COSTS = RateLimits(Rate(600, 100), Rate(6000, 1000, max_cost=6000), max_concurrent_requests=3)


@given(operations=OPERATIONS, limits=st.just(LIMITS) | st.just(LARGER_COSTS) | ANY_LIMITS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_script_and_the_meters_of_one_process_agree_to_the_microsecond(module_redis, operations, limits):
    """The script's clock is replaced by the arguments 15 and 16, and nothing else of it."""
    assert SCRIPT.count(TIME) == 1
    script = SCRIPT.replace(TIME, "{ARGV[15], ARGV[16]}")
    now = 1_000_000 * SECOND

    async def check():
        nonlocal now
        local = LocalRateLimitStore(lambda: now / SECOND)
        shared = RedisRateLimitStore(address_of(module_redis.url), timeout_seconds=1, lease_seconds=3600)
        connection = await open_connection(shared.address, 1.0, NameLookup())
        await connection.ask("FLUSHALL")
        running = []
        for number, (action, step, num_tokens) in enumerate(operations):
            now += step
            lease, needed, charged = f"v{number}", Cost(), Cost()
            if action == "enter":
                expected = await local.enter("a", limits, lease, min_tokens=1)
                needed, charged = Cost(1, 1), Cost(1)
                running += [lease] if expected.refused is None else []
            elif action == "charge":
                expected = await local.charge("a", limits, num_tokens)
                needed = charged = Cost(tokens=num_tokens)
            elif running:
                lease = running.pop()
                local.leave("a", limits, lease, Cost(1, num_tokens))
                charged, meter = Cost(-1, -num_tokens), local.meters["a"]
                expected = RateState(meter.requests_debt, meter.tokens_debt)
            else:
                continue
            words = shared.arguments(limits, action, lease, needed=needed, charged=charged)
            told = await connection.ask("EVAL", script, 2, *keys_of("a"), *words, now // SECOND, now % SECOND)
            assert RateState(told[2], told[3], REFUSALS[told[0]], told[1]) == expected
        connection.close("done")

    asyncio.run(check())


async def test_two_gateways_count_together(module_redis, opened):
    await asked(module_redis, "FLUSHALL")
    one, other = await opened(module_redis), await opened(module_redis)
    for number in range(100):
        state = await (one, other)[number % 2].enter("key", RateLimits(requests=Rate(6, 100)), "", min_tokens=0)
        assert state.refused is None
    state = await one.enter("key", RateLimits(requests=Rate(6, 100)), "", min_tokens=0)
    assert state.refused == "requests"
    assert 9 * SECOND < state.wait <= 10 * SECOND
    assert (await other.enter("another", LIMITS, "x", min_tokens=0)).refused is None


async def test_a_refused_visit_takes_nothing_and_one_that_left_frees_its_place(module_redis, opened):
    await asked(module_redis, "FLUSHALL")
    meters, slow = await opened(module_redis), RateLimits(Rate(1, 100), None, max_concurrent_requests=2)
    readings = [await meters.enter("key", slow, lease, min_tokens=0) for lease in ("v1", "v2", "v3")]
    assert [state.refused for state in readings] == [None, None, "concurrency"]
    assert slow.requests.remaining(readings[-1].requests_debt) == 98
    assert set(meters.running) == {"v1", "v2"}
    meters.leave("key", slow, "v1", Cost(requests=1))
    state = await meters.enter("key", slow, "v4", min_tokens=0)
    assert state.refused is None
    assert slow.requests.remaining(state.requests_debt) == 98


async def test_places_of_a_gateway_that_died_are_free_when_their_leases_end_and_those_of_one_that_lives_are_kept(redis, opened):
    dying, living = await opened(redis, lease_seconds=0.3), await opened(redis, lease_seconds=0.3)
    limits = RateLimits(max_concurrent_requests=2)
    assert (await dying.enter("key", limits, "dead", min_tokens=0)).refused is None
    assert (await living.enter("key", limits, "alive", min_tokens=0)).refused is None
    dying.background.task.cancel()  # nobody renews its leases any more

    async def is_free():
        return (await living.enter("key", limits, "next", min_tokens=0)).refused is None

    assert not await is_free()
    await until(is_free)
    assert set(await asked(redis, "ZRANGE", keys_of("key")[1], 0, -1)) == {b"alive", b"next"}


async def test_a_server_clock_that_was_set_back_locks_nobody_out(module_redis, opened):
    """What a step back of an hour leaves behind: states and leases of a time to come."""
    await asked(module_redis, "FLUSHALL")
    meters = await opened(module_redis)
    limits = RateLimits(Rate(600, 100), None, max_concurrent_requests=1)
    later = time.time_ns() // 1000 + 3600 * SECOND
    await asked(module_redis, "HSET", keys_of("key")[0], "requests", 100 * MINUTE, "tokens", 0, "at", later)
    await asked(module_redis, "ZADD", keys_of("key")[1], later, "old")
    state = await meters.enter("key", limits, "new", min_tokens=0)
    assert state.refused == "concurrency"
    assert limits.requests.remaining(state.requests_debt) == 0  # and nothing was given away
    score = float(await asked(module_redis, "ZSCORE", keys_of("key")[1], "old"))
    assert score / SECOND - time.time() <= meters.lease_seconds

    async def is_free():
        return (await meters.enter("key", RateLimits(Rate(600, 100)), "new", min_tokens=0)).refused is None

    await until(is_free)  # after the tenth of a second that one request takes to come back


async def test_what_is_paid_back_is_not_kept(module_redis, opened):
    await asked(module_redis, "FLUSHALL")
    meters = await opened(module_redis)
    await meters.enter("key", LIMITS, "v1", min_tokens=0)
    await meters.charge("key", LIMITS, 600)
    meters_key, visits_key = keys_of("key")
    assert 6000 < await asked(module_redis, "PTTL", meters_key) <= 7000
    assert await asked(module_redis, "PTTL", visits_key) > 0
    meters.leave("key", LIMITS, "v1", Cost(1, 600))
    await meters.charge("other", LIMITS, 0)  # the leaving has been worked off
    assert await asked(module_redis, "EXISTS", meters_key, visits_key) == 0


async def test_a_server_that_forgot_its_scripts_is_taught_again(module_redis, opened):
    meters = await opened(module_redis)
    await asked(module_redis, "SCRIPT", "FLUSH")
    assert (await meters.charge("flushed", LIMITS, 10)).refused is None
    assert (await meters.charge("flushed", LIMITS, 1000)).refused == "tokens"


async def test_a_server_that_was_killed_is_found_again(redis, opened):
    meters = await opened(redis)
    await meters.charge("key", LIMITS, 1)
    redis.kill()
    with pytest.raises(RateLimitStoreUnavailable):
        await meters.charge("key", LIMITS, 1)
    began = time.perf_counter()
    for _ in range(1000):
        with pytest.raises(RateLimitStoreUnavailable):
            await meters.charge("key", LIMITS, 1)
    assert time.perf_counter() - began < 1.0  # no request waits for a server that is known to be unavailable
    redis.start()

    async def is_back():
        try:
            return (await meters.charge("key", LIMITS, 1)).refused is None
        except RateLimitStoreUnavailable:
            return False

    await until(is_back)
    assert meters.is_alive


async def test_a_server_that_hangs_costs_one_time_out_and_is_found_again(redis, opened):
    meters = await opened(redis, timeout_seconds=0.05)
    redis.halt()
    many = await asyncio.gather(*(meters.charge("key", LIMITS, 1) for _ in range(200)), return_exceptions=True)
    assert {type(each) for each in many} == {RateLimitStoreUnavailable}
    assert str(many[0]) == "no answer within 0.05 s"
    began = time.perf_counter()
    for _ in range(1000):
        with pytest.raises(RateLimitStoreUnavailable):
            await meters.charge("key", LIMITS, 1)
    assert time.perf_counter() - began < 1.0
    redis.go_on()

    async def is_back():
        try:
            return (await meters.charge("key", LIMITS, 1)).refused is None
        except RateLimitStoreUnavailable:
            return False

    await until(is_back)


async def test_a_loop_that_was_busy_blames_nobody(module_redis, opened):
    meters = await opened(module_redis, timeout_seconds=0.02)
    asking = asyncio.create_task(meters.charge("busy", LIMITS, 1))
    await asyncio.sleep(0)
    time.sleep(0.1)  # noqa: ASYNC251 - what a loop must never do, and may be made to
    assert (await asking).refused is None


async def test_who_stops_waiting_disturbs_nobody(module_redis, opened):
    meters = await opened(module_redis)
    leaving = [asyncio.create_task(meters.charge(f"gone{number}", LIMITS, 1)) for number in range(20)]
    staying = [asyncio.create_task(meters.charge(f"here{number}", LIMITS, number)) for number in range(20)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    readings = await asyncio.gather(*staying)
    debts = [LIMITS.tokens.burst - LIMITS.tokens.remaining(state.tokens_debt) for state in readings]
    assert debts == list(range(20))


async def test_a_password_and_a_database_are_used(tmp_path, opened):
    server = RedisServer(tmp_path, "--requirepass", "p@ss/word")
    server.start()
    try:
        with pytest.raises(RateLimitStoreUnavailable, match="NOAUTH"):
            await (await opened(server)).charge("key", LIMITS, 1)
        server.url = f"redis://:p%40ss%2Fword@127.0.0.1:{server.port}/3"
        await (await opened(server)).charge("key", LIMITS, 1)
        assert await asked(server, "DBSIZE") == 1
    finally:
        server.kill()


async def test_a_unix_socket_is_spoken_to(tmp_path, opened):
    server = RedisServer(tmp_path, "--unixsocket", str(tmp_path / "s"))
    server.start()
    try:
        server.url = f"unix://{tmp_path}/s?db=1"
        assert (await (await opened(server)).charge("key", LIMITS, 1)).refused is None
    finally:
        server.kill()


async def test_what_is_no_redis_is_called_away(opened):
    async def greet(_reader, writer):
        writer.write(b"220 mail ready\r\n")
        await writer.drain()
        writer.close()

    impostor = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with impostor:
        url = f"redis://127.0.0.1:{impostor.sockets[0].getsockname()[1]}"
        meters = RedisRateLimitStore(address_of(url), timeout_seconds=1)
        await meters.start()
        with pytest.raises(RateLimitStoreUnavailable):
            await meters.charge("key", LIMITS, 1)
        await meters.close()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", RedisAddress("cache")),
        ("redis://:secret@cache:7000/2\n", RedisAddress("cache", 7000, "", 2, "", "secret")),
        ("rediss://me:a%3Ab@[::1]", RedisAddress("::1", 6379, "", 0, "me", "a:b", is_tls=True)),
        ("unix:///run/redis.sock?db=1", RedisAddress(path="/run/redis.sock", database=1)),
    ],
)
def test_an_address_is_read(url, address):
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url", ["", "cache:6379", "http://:hush@cache", "redis://:hush@", "redis://:hush@cache/x", "redis://:hush@c:port"]
)
def test_what_is_no_address_is_refused_without_being_quoted(url):
    with pytest.raises(ConfigurationError, match=r"limits\.redis_url") as caught:
        address_of(url)
    assert "hush" not in str(caught.value)


def test_a_server_program_is_there_where_it_must_be():
    assert find_program(*PROGRAMS, hint=HINT)
