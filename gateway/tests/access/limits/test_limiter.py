"""What is charged when, what is given back, and what becomes of requests while nobody can tell."""

import asyncio

import pytest

from gateway.access.keys.key import Allowance, Caller
from gateway.access.limits.limiter import Limiter
from gateway.access.limits.local_store import Cost, LocalRateLimitStore, RateLimitStoreUnavailable, RateState
from gateway.config import LimitSettings
from gateway.errors import (
    ClientGone,
    DeadlinePassed,
    InvalidJSON,
    LimiterUnavailable,
    Overloaded,
    RateLimited,
    RequestExceedsLimit,
    Unembeddable,
)
from gateway.metrics import Metrics
from gateway.testing.fakes import FakeClock


class UnavailableRateLimitStore(LocalRateLimitStore):
    """Those of a server that nobody reaches."""

    outage = "it cannot be reached"
    left: tuple[str, Cost] | None = None

    async def enter(self, caller, limits, lease, *, min_tokens):
        raise RateLimitStoreUnavailable("it cannot be reached")

    async def charge(self, caller, limits, num_tokens):
        raise RateLimitStoreUnavailable("it cannot be reached")

    def leave(self, caller, limits, lease, returned):
        self.on_cancelled = (lease, returned)


@pytest.fixture
def clock():
    return FakeClock()


def limiter_of(clock, *, limit_store=None, **settings):
    return Limiter(LimitSettings(**settings), limit_store or LocalRateLimitStore(clock), Metrics())


def standing(limiter, caller="a"):
    """The requests and the tokens that fit now."""
    limits = limiter.lease(Caller(caller)).limits
    meter = limiter.store.meter(caller, limits)
    return limits.requests.remaining(meter.requests_debt), limits.tokens.remaining(meter.tokens_debt)


async def served(limiter, num_tokens, error=None, caller="a", cached=0):
    lease = limiter.lease(Caller(caller))
    async with lease:
        await lease.charge(num_tokens, num_cached_tokens=cached)
        if error is not None:
            raise error
    return lease


async def test_a_request_and_its_tokens_are_charged_once(clock):
    limiter = limiter_of(clock, requests_per_minute=60, tokens_per_minute=600, tokens_burst=100)
    lease = await served(limiter, 30)
    assert standing(limiter) == (9, 70)
    assert lease.state == RateState(60_000_000, 30 * 60_000_000)


@pytest.mark.parametrize(
    "error", [Overloaded(), DeadlinePassed(), asyncio.CancelledError()], ids=lambda error: type(error).__name__
)
async def test_work_that_never_ran_is_given_back(clock, error):
    limiter = limiter_of(clock, requests_per_minute=60, tokens_per_minute=600, tokens_burst=100)
    with pytest.raises(type(error)):
        await served(limiter, 30, error)
    assert standing(limiter) == (10, 100)


@pytest.mark.parametrize(
    "error", [InvalidJSON(), Unembeddable("input"), ClientGone(), ValueError()], ids=lambda error: type(error).__name__
)
async def test_what_the_client_or_the_work_did_is_not_given_back(clock, error):
    limiter = limiter_of(clock, requests_per_minute=60, tokens_per_minute=600, tokens_burst=100)
    with pytest.raises(type(error)):
        await served(limiter, 30, error)
    assert standing(limiter) == (9, 70)


async def test_a_reply_that_gives_back_shows_it(clock):
    limiter = limiter_of(clock, requests_per_minute=60, tokens_per_minute=600, tokens_burst=100)
    lease = limiter.lease(Caller("a"))
    await lease.__aenter__()
    await lease.charge(30)
    await lease.__aexit__(Overloaded, Overloaded(), None)
    assert lease.state == RateState()


async def test_a_request_refused_for_its_tokens_stays_charged_as_one(clock):
    limiter = limiter_of(clock, requests_per_minute=60, tokens_per_minute=600, tokens_burst=100)
    await served(limiter, 90)
    with pytest.raises(RateLimited) as caught:
        await served(limiter, 30)
    assert standing(limiter) == (8, 10)
    assert (caught.value.status, caught.value.type, caught.value.code) == (429, "tokens", "rate_limit_exceeded")
    assert caught.value.headers() == {"Retry-After": "2"}
    assert caught.value.message == (
        "Rate limit reached on tokens per minute: limit 600, remaining 10, requested 30. Please try again in 2s."
    )


async def test_a_caller_without_a_token_left_is_refused_at_the_door(clock):
    limiter = limiter_of(clock, requests_per_minute=60, tokens_per_minute=600, tokens_burst=100)
    await served(limiter, 100)
    with pytest.raises(RateLimited) as caught:
        async with limiter.lease(Caller("a")):
            pytest.fail("it was let in")
    assert (caught.value.type, standing(limiter)) == ("tokens", (9, 0))


@pytest.mark.parametrize(
    ("wait", "retry_after", "told"), [(0.012, "1", "12ms"), (20, "20", "20s"), (20.5, "21", "20.5s"), (360, "59", "6m0s")]
)
def test_a_wait_is_told_exactly_and_in_seconds_that_clients_obey(wait, retry_after, told):
    error = RateLimited("requests", "requests per minute", wait_seconds=wait)
    assert error.headers()["Retry-After"] == retry_after
    assert error.message.endswith(f"Please try again in {told}.")


async def test_who_comes_back_when_told_is_served(clock):
    limiter = limiter_of(clock, requests_per_minute=7, requests_burst=1)
    await served(limiter, 1)
    with pytest.raises(RateLimited) as caught:
        await served(limiter, 1)
    clock.advance(int(caught.value.headers()["Retry-After"]))
    await served(limiter, 1)


async def test_what_can_never_fit_is_said_to_be_too_much(clock):
    limiter = limiter_of(clock, tokens_per_minute=600, tokens_burst=100)
    with pytest.raises(RequestExceedsLimit) as caught:
        await served(limiter, 101)
    assert (caught.value.status, caught.value.code) == (400, "request_exceeds_limit")
    assert "600 tokens per minute" in caught.value.message
    assert "101 tokens" in caught.value.message
    assert "at most 100" in caught.value.message


async def test_requests_at_once_name_the_limit(clock):
    limiter = limiter_of(clock, max_concurrent_requests=1, max_wait_seconds=0)
    async with limiter.lease(Caller("a")):
        with pytest.raises(RateLimited) as caught:
            await served(limiter, 1)
        await served(limiter, 1, caller="b")
    assert caught.value.message == "Rate limit reached on concurrent requests: limit 1. Please try again in 1s."
    assert (caught.value.type, caught.value.headers()["Retry-After"]) == ("requests", "1")
    assert 1000 <= int(caught.value.headers()["retry-after-ms"]) <= 2000
    assert limiter.metrics.registry.get_sample_value("gateway_limited_total", {"limit": "concurrency"}) == 1
    await served(limiter, 1)
    assert limiter.queue.lines == {}


class SharedWithOthers(LocalRateLimitStore):
    """Another gateway holds the only place for the first `num_held` questions."""

    num_held = 3

    async def enter(self, caller, limits, lease, *, min_tokens):
        if self.num_held:
            self.num_held -= 1
            return RateState(refused="concurrency", wait=1_000_000)
        return await super().enter(caller, limits, lease, min_tokens=min_tokens)


async def test_a_place_that_another_gateway_holds_is_waited_for_here(clock):
    limiter = limiter_of(clock, limit_store=SharedWithOthers(clock), max_concurrent_requests=1)
    await served(limiter, 1)
    assert limiter.store.num_held == 0
    assert limiter.metrics.registry.get_sample_value("gateway_limited_total", {"limit": "concurrency"}) is None


async def reloaded(limiter, **settings):
    return Limiter(LimitSettings(**settings), limiter.store, limiter.metrics, limiter.queue)


def with_limit(most):
    return Caller("a", allowance=Allowance(max_concurrent_requests=most))


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("changes", [{"max_concurrent_requests": 2}, {}])
async def test_a_reload_that_raises_the_limit_wakes_who_waits(clock, changes):
    limiter = limiter_of(clock, max_concurrent_requests=1, max_wait_seconds=60)
    leases = [limiter.lease(Caller("a")) for _ in range(2)]
    own = [limiter.lease(Caller("b", allowance=Allowance(max_concurrent_requests=1))) for _ in range(2)]
    tasks = [asyncio.create_task(lease.__aenter__()) for lease in (*leases, *own)]
    await settled()
    assert [task.done() for task in tasks] == [True, False, True, False]
    await reloaded(limiter, **changes)
    await settled()
    assert [task.done() for task in tasks] == [True, True, True, False]
    for lease in (*leases, *own):
        await lease.__aexit__(None, None, None)
        await settled()
    assert limiter.queue.lines == {}


async def test_who_waited_under_a_smaller_limit_is_not_overtaken_under_a_larger_one(clock):
    limiter = limiter_of(clock, max_wait_seconds=60)
    leases = [limiter.lease(with_limit(most)) for most in (1, 1, 2, 2)]
    tasks = [asyncio.create_task(lease.__aenter__()) for lease in leases]
    await settled()
    assert [task.done() for task in tasks] == [True, True, False, False]
    for lease in leases:
        await lease.__aexit__(None, None, None)
        await settled()
    assert all(task.done() for task in tasks)
    assert limiter.queue.lines == {}


@pytest.mark.parametrize("ends", ["client", "drain"])
async def test_who_waits_for_another_gateway_leaves_with_its_client_and_at_the_drain(clock, ends):
    store = SharedWithOthers(clock)
    store.num_held = 1_000_000
    limiter = limiter_of(clock, limit_store=store, max_concurrent_requests=1, max_wait_seconds=60)
    listeners = []
    waiter = asyncio.create_task(limiter.lease(Caller("a"), listeners).__aenter__())
    while not limiter.queue.pauses:
        await asyncio.sleep(0)
    assert limiter.metrics.registry.get_sample_value("gateway_limit_waiting_requests") == 1
    asked = store.num_held
    _ = limiter.queue.close() if ends == "drain" else listeners[0]()
    with pytest.raises(Overloaded if ends == "drain" else ClientGone):
        await waiter
    assert (store.num_held, listeners, limiter.queue.lines, limiter.queue.pauses) == (asked, [], {}, set())
    assert limiter.metrics.registry.get_sample_value("gateway_limit_waiting_requests") == 0


async def test_a_slot_that_may_be_taken_is_released_if_a_later_answer_of_the_store_is_lost(clock):
    class Lost(SharedWithOthers):
        num_held, left = 1, ()

        async def enter(self, caller, limits, lease, *, min_tokens):
            if not self.num_held:
                raise RateLimitStoreUnavailable("its answer was lost")
            return await super().enter(caller, limits, lease, min_tokens=min_tokens)

        def leave(self, caller, limits, lease, returned):
            self.left += (returned,)

    limiter = limiter_of(clock, limit_store=Lost(clock), max_concurrent_requests=1, on_limiter_failure="deny")
    with pytest.raises(LimiterUnavailable):
        await served(limiter, 1)
    assert limiter.store.left == (Cost(),)
    assert limiter.queue.lines == {}


async def test_a_request_refused_before_its_limits_were_asked_for_is_told_where_it_stands(clock):
    limiter = limiter_of(clock, max_concurrent_requests=1, requests_per_minute=60, requests_burst=10, max_wait_seconds=0)
    async with limiter.lease(Caller("a")):
        lease = limiter.lease(Caller("a"))
        with pytest.raises(RateLimited):
            await lease.__aenter__()
    assert lease.limits.requests.remaining(lease.state.requests_debt) == 9


async def test_cached_inputs_use_up_tokens_unless_the_settings_say_otherwise(clock):
    limiter = limiter_of(clock, requests_per_minute=60, tokens_per_minute=600, tokens_burst=100)
    await served(limiter, 30, cached=30)
    assert standing(limiter)[1] == 70
    generous = limiter_of(clock, requests_per_minute=60, tokens_per_minute=600, tokens_burst=100, charge_cached=False)
    await served(generous, 100)
    await served(generous, 30, cached=30)  # though no token is left
    assert standing(generous)[1] == 0
    with pytest.raises(RateLimited):
        await served(generous, 30, cached=29)


async def test_a_key_has_its_own_limits(clock):
    limiter = limiter_of(clock, requests_per_minute=60)
    async with limiter.lease(Caller("own", Allowance(requests_per_minute=6))):
        pass
    with pytest.raises(RateLimited):
        async with limiter.lease(Caller("own", Allowance(requests_per_minute=6))):
            pass


async def test_while_nobody_can_tell_requests_are_let_through_if_so_configured(clock):
    limit_store = UnavailableRateLimitStore(clock)
    limits = {"requests_per_minute": 60, "tokens_per_minute": 600, "max_concurrent_requests": 1}
    limiter = limiter_of(clock, limit_store=limit_store, **limits, on_limiter_failure="allow")
    for _ in range(101):
        lease = await served(limiter, 30)
        assert lease.state is None
    assert limiter.metrics.registry.get_sample_value("gateway_limiter_failures_total", {"decision": "allowed"}) == 202
    assert limiter.shortfall == "allow"
    assert limit_store.on_cancelled is not None
    assert limit_store.on_cancelled[1] == Cost()  # nothing was charged, so nothing is given back


async def test_while_nobody_can_tell_requests_are_refused_if_so_configured(clock):
    limiter = limiter_of(clock, limit_store=UnavailableRateLimitStore(clock), requests_per_minute=60, on_limiter_failure="deny")
    with pytest.raises(LimiterUnavailable) as caught:
        await served(limiter, 30)
    assert (caught.value.status, caught.value.code, caught.value.headers()) == (503, "limiter_unavailable", {"Retry-After": "2"})
    assert limiter.metrics.registry.get_sample_value("gateway_limiter_failures_total", {"decision": "denied"}) == 1


async def test_callers_without_limits_ask_nobody(clock):
    limiter = limiter_of(clock, limit_store=UnavailableRateLimitStore(clock), on_limiter_failure="deny")
    lease = await served(limiter, 10**9)
    assert lease.state is None


async def test_only_what_exceeds_a_whole_minute_can_never_fit(clock):
    limiter = limiter_of(clock, tokens_per_minute=1_000_000)
    await served(limiter, 242_000)
    await served(limiter, 600_000)
    with pytest.raises(RateLimited) as caught:
        await served(limiter, 242_000)
    assert "limit 1000000, remaining 0, requested 1." in caught.value.message  # at the door, before its size is known
    clock.advance(int(caught.value.headers()["Retry-After"]))
    await served(limiter, 1_000_000 - 842_000 + 33 * 1_000_000 // 60)  # above the burst again: what is left of the minute
    clock.advance(60)
    with pytest.raises(RequestExceedsLimit) as never:
        await served(limiter, 1_000_001)
    assert "at most 1000000 may come at once" in never.value.message


async def test_a_request_that_fits_later_is_told_exactly_when(clock):
    limiter = limiter_of(clock, tokens_per_minute=1_000_000)
    await served(limiter, 600_000)
    with pytest.raises(RateLimited) as caught:
        await served(limiter, 500_000)
    assert caught.value.headers()["Retry-After"] == "6"
    assert "remaining 0, requested 500000. Please try again in 6s." in caught.value.message
    clock.advance(6)
    await served(limiter, 500_000)


async def test_who_comes_back_too_early_again_and_again_pays_for_what_was_counted(clock):
    limiter = limiter_of(clock, requests_per_minute=6000, tokens_per_minute=64_000, tokens_burst=64_000)
    await served(limiter, 32_000)
    waits = []
    for _ in range(3):
        with pytest.raises(RateLimited) as caught:
            await served(limiter, 64_000)
        waits.append(caught.value.message.rpartition("in ")[2])
    assert standing(limiter)[1] == 32_000 - 2 * 1000
    assert waits == ["30s.", "30.938s.", "31.875s."]
    clock.advance(31.875)
    await served(limiter, 64_000)
    assert standing(limiter)[1] == 0


async def test_a_429_is_free_for_who_is_served_in_between(clock):
    limiter = limiter_of(clock, requests_per_minute=6000, tokens_per_minute=64_000, tokens_burst=64_000)
    await served(limiter, 64_000)
    for _ in range(3):
        clock.advance(30)
        with pytest.raises(RateLimited):
            await served(limiter, 64_000)
        clock.advance(30)
        await served(limiter, 64_000)
    assert standing(limiter)[1] == 0


async def test_callers_who_were_refused_are_remembered_in_bounded_memory(clock, monkeypatch):
    monkeypatch.setattr("gateway.access.limits.limiter.MAX_REFUSED", 10)
    limiter = limiter_of(clock, tokens_per_minute=60, tokens_burst=10)
    for number in range(30):
        await served(limiter, 6, caller=f"{number}")
        with pytest.raises(RateLimited):
            await served(limiter, 6, caller=f"{number}")
    assert list(limiter.refused) == [str(number) for number in range(20, 30)]
