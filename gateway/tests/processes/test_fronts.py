"""Several fronts of one engine process: what they share, what becomes of it when one dies, and reloads over all of them."""

import asyncio

import msgspec
import numpy as np
import pytest

from gateway.access.keys.key import Allowance, Caller, new_key
from gateway.access.keys.policy import policy_of
from gateway.calls.engine_message import (
    AuthenticateCall,
    CallerResult,
    CallFailure,
    Commit,
    Configure,
    EmbedPrepared,
    EnterLease,
    ExitLease,
    KeysChanged,
    LeaseState,
    ModelStates,
    PrepareCall,
    Released,
)
from gateway.calls.message import EmbedResult
from gateway.config import AuthSettings
from gateway.embedding.embedder import Health, Inputs
from gateway.errors import ConfigurationError
from gateway.testing.fakes import FakeEmbedder
from gateway.tests.api.faulty import embedded, metric, num_queued
from gateway.tests.processes.engine_links import BOUND_SECONDS, FAKE, KEY, config_of, running


@pytest.fixture
def fake():
    return FakeEmbedder()


@pytest.fixture
async def engine(tmp_path, fake):
    async with running(tmp_path, fake=fake) as engine:
        yield engine


@pytest.fixture
async def pair(engine):
    fronts = [await engine.front(number) for number in range(2)]
    yield fronts
    for front in fronts:
        front.channel.close()


async def until(is_true):
    async with asyncio.timeout(BOUND_SECONDS):
        while not is_true():
            await asyncio.sleep(0.002)


async def begun(engine, front, text, **more):
    """A call whose batch is running while the encoder is held."""
    number, answered = front.begin_embed([text], **more)
    assert await asyncio.to_thread(engine.encoder.is_running.wait, BOUND_SECONDS)
    return number, answered


async def test_two_fronts_share_one_flight(engine, pair):
    with engine.encoder.held():
        _, first = await begun(engine, pair[0], "1 2")
        _, second = pair[1].begin_embed(["1 2"])
        await until(lambda: metric(engine.gateway, "gateway_cache_lookups_total", model="m", result="joined") == 1)
    for answered in (first, second):
        answer, payload = await answered
        assert isinstance(answer, EmbedResult)
        np.testing.assert_allclose(np.frombuffer(payload, dtype=np.float32), embedded("1 2"), atol=1e-6)
    assert engine.encoder.batches == [[2]]


async def test_a_flight_goes_on_while_anybody_waits_for_it(engine, pair):
    """The front that began it dies; then the other one's client leaves too."""
    with engine.encoder.held():
        await begun(engine, pair[0], "0")  # the device is busy, so that the flight's work stays queued
        _, first = pair[0].begin_embed(["1 2"])
        await until(lambda: num_queued(engine.gateway) == 1)
        _, second = pair[1].begin_embed(["1 2"])
        await until(lambda: metric(engine.gateway, "gateway_cache_lookups_total", model="m", result="joined") == 1)
        await pair[0].close()
        with pytest.raises(ConnectionError):
            await first
        await until(lambda: not engine.fronts.connections.get(0))
        assert num_queued(engine.gateway) == 1
        second.cancel()
        await until(lambda: num_queued(engine.gateway) == 0)
    assert len(engine.encoder.batches) <= 1


async def test_a_flight_that_was_joined_answers_after_its_first_caller_left(engine, pair):
    with engine.encoder.held():
        _, first = await begun(engine, pair[0], "1 2")
        _, second = pair[1].begin_embed(["1 2"])
        await until(lambda: metric(engine.gateway, "gateway_cache_lookups_total", model="m", result="joined") == 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await until(lambda: not engine.fronts.connections[0].calls.cancellations)
    answer, payload = await second
    assert isinstance(answer, EmbedResult)
    np.testing.assert_allclose(np.frombuffer(payload, dtype=np.float32), embedded("1 2"), atol=1e-6)
    assert engine.encoder.batches == [[2]]


async def test_a_key_that_fills_the_queue_at_one_front_leaves_another_at_the_other_its_share(engine, pair):
    """Batches hold 64 tokens. The busy key's twelve texts of 16 fill three; the other's one of 14 is in the first or second."""
    with engine.encoder.held():
        await begun(engine, pair[0], "0", caller="busy")  # the device is busy, so that all others stay queued
        busy = [pair[0].begin_embed([f"{number} " + "1 " * 15], caller="busy")[1] for number in range(12)]
        await until(lambda: num_queued(engine.gateway) == 12)
        _, other = pair[1].begin_embed(["2 " * 14], caller="other")
        await until(lambda: num_queued(engine.gateway) == 13)
    assert [type(answer) for answer, _ in await asyncio.gather(*busy, other)] == [EmbedResult] * 13
    [_, *batches] = engine.encoder.batches
    assert len(batches) >= 4
    assert any(14 in batch for batch in batches[:2]), batches


async def test_limits_are_exact_over_two_fronts(engine, pair):
    caller = Caller("k", Allowance(requests_per_minute=60, requests_burst=3))
    answers = [front.begin(EnterLease, caller=caller)[1] for front in pair for _ in range(4)]
    entered = [type(answer) for answer, _ in await asyncio.gather(*answers)]
    assert (entered.count(LeaseState), entered.count(CallFailure)) == (3, 5)


async def test_tokens_are_exact_over_two_fronts(engine, pair):
    caller = Caller("k", Allowance(tokens_per_minute=60, tokens_burst=10))
    leases = [(front, (await front.enter(caller))[0]) for front in pair for _ in range(3)]
    calls = [front.begin_embed([f"{number} 1 2"], lease=lease)[1] for number, (front, lease) in enumerate(leases, 10)]
    kinds = [type(answer) for answer, _ in await asyncio.gather(*calls)]
    assert (kinds.count(EmbedResult), kinds.count(CallFailure)) == (3, 3)


async def test_limits_are_exact_where_calls_enter_their_leases_themselves(engine, pair):
    """Some over either front do, others were entered before: one count, of requests and of tokens."""
    caller = Caller("k", Allowance(requests_per_minute=60, requests_burst=5, tokens_per_minute=600))
    entered, _ = await pair[0].enter(caller)
    calls = [front.begin_embed([f"{number} 1"], entering=caller) for number, front in enumerate(pair * 4, 10)]
    calls.append(pair[0].begin_embed(["1 2 3"], lease=entered))
    answers = [answer for answer, _ in await asyncio.gather(*(answered for _, answered in calls))]
    assert [type(answer) for answer in answers].count(EmbedResult) == 5
    assert {answer.error for answer in answers if isinstance(answer, CallFailure)} == {"RateLimited"}
    assert engine.num_running(caller) == 5
    store, limits = engine.gateway.generation.limiter.store, engine.limits(caller)
    assert store.debts("k", limits)[1] <= (4 * 2 + 3) * 60_000_000
    for (number, _), answer, front in zip(calls[:-1], answers, pair * 4, strict=False):
        if isinstance(answer, EmbedResult):
            assert answer.state is not None
            front.channel.send(ExitLease(lease=number))
    pair[0].channel.send(ExitLease(lease=entered))
    await until(lambda: engine.num_running(caller) == 0)
    assert engine.gateway.generation.num_requests == 2  # the fronts' own


async def test_a_call_that_enters_may_wait_for_its_turn_and_leave_its_queue(engine, pair):
    caller = Caller("k", Allowance(max_concurrent_requests=1))
    lease, _ = await pair[0].enter(caller)
    number, waiting = pair[1].begin_embed(["1 2"], entering=caller)
    queue = engine.gateway.generation.limiter.queue
    await until(lambda: queue.num_waiting == 1)
    pair[0].channel.send(ExitLease(lease=lease))
    assert isinstance((await waiting)[0], EmbedResult)
    _, leaving = pair[0].begin_embed(["1 2 3"], entering=caller)
    await until(lambda: queue.num_waiting == 1)
    leaving.cancel()
    await until(lambda: queue.num_waiting == 0)
    pair[1].channel.send(ExitLease(lease=number))
    await until(lambda: engine.num_running(caller) == 0)


async def test_a_lease_waits_for_its_turn_behind_another_front(engine, pair):
    caller = Caller("k", Allowance(max_concurrent_requests=1))
    lease, _ = await pair[0].enter(caller)
    _, waiting = pair[1].begin(EnterLease, caller=caller)
    await until(lambda: engine.gateway.generation.limiter.queue.num_waiting == 1)
    pair[0].channel.send(ExitLease(lease=lease))
    answer, _ = await waiting
    assert isinstance(answer, LeaseState)
    assert answer.waited_seconds > 0
    assert engine.num_running(caller) == 1


async def test_a_waiting_lease_leaves_with_its_call(engine, pair):
    caller = Caller("k", Allowance(max_concurrent_requests=1))
    await pair[0].enter(caller)
    number, waiting = pair[1].begin(EnterLease, caller=caller)
    queue = engine.gateway.generation.limiter.queue
    await until(lambda: queue.num_waiting == 1)
    waiting.cancel()
    await until(lambda: queue.num_waiting == 0)
    pair[1].channel.send(ExitLease(lease=number))
    assert engine.num_running(caller) == 1


async def test_what_a_dead_front_held_is_given_back(engine, fake, pair):
    """Its leases, those that waited, what was prepared, queued work, and a call under way: of each one."""
    caller = Caller("k", Allowance(max_concurrent_requests=1, requests_per_minute=60))
    lease, _ = await pair[0].enter(caller)
    pair[0].begin(EnterLease, caller=caller)
    _, prepared = pair[0].begin(
        PrepareCall, generation=1, model=FAKE, seconds=9, inputs=Inputs(["a"], is_array=False, caller="a", deadline=0.0)
    )
    await prepared
    fake.gate = asyncio.Event()
    number, asked = pair[0].begin(
        PrepareCall, generation=1, model=FAKE, seconds=9, inputs=Inputs(["b"], is_array=False, caller="a", deadline=0.0)
    )
    await asked
    pair[0].begin(EmbedPrepared, number=number)
    await fake.is_waiting.wait()
    with engine.encoder.held():
        await begun(engine, pair[0], "1", lease=lease)
        pair[0].begin_embed(["2"])
        await until(lambda: num_queued(engine.gateway) == 1)
        connection = engine.fronts.connections[0]
        await pair[0].close()
        await until(lambda: 0 not in engine.fronts.connections)
        await until(lambda: num_queued(engine.gateway) == 0)
    await until(lambda: fake.num_cancelled == 1)
    assert (connection.calls.cancellations, connection.leases.entered, connection.prepared.kept) == ({}, {}, {})
    assert engine.num_running(caller) == 0
    assert engine.gateway.generation.limiter.queue.num_waiting == 0
    _, entered = await pair[1].enter(caller)
    assert isinstance(entered, LeaseState)


async def test_the_refund_of_a_dead_front_is_that_of_a_shutdown(engine, pair):
    caller = Caller("k", Allowance(requests_per_minute=1, requests_burst=1))
    await pair[0].enter(caller)
    await pair[0].close()
    await until(lambda: 0 not in engine.fronts.connections)
    assert isinstance((await pair[1].enter(caller))[1], LeaseState)


@pytest.mark.parametrize(("error", "is_refunded"), [("", False), ("ModelUnavailable", True), ("InvalidJSON", False)])
async def test_a_lease_ends_as_its_request_did(engine, pair, error, is_refunded):
    caller = Caller("k", Allowance(requests_per_minute=1, requests_burst=1))
    lease, _ = await pair[0].enter(caller)
    await pair[0].exit(lease, error=error)
    _, again = await pair[1].enter(caller)
    assert isinstance(again, LeaseState) == is_refunded


async def test_a_cancelled_request_is_refunded_and_a_client_who_left_is_not(engine, pair):
    caller = Caller("k", Allowance(requests_per_minute=1, requests_burst=1))
    lease, _ = await pair[0].enter(caller)
    await pair[0].exit(lease, is_cancelled=True)
    lease, _ = await pair[1].enter(caller)
    await pair[1].exit(lease, error="ClientGone", num_bytes=100)
    assert isinstance((await pair[0].enter(caller))[1], CallFailure)


async def test_a_changed_key_is_told_to_all_fronts(engine, pair):
    snapshot = engine.gateway.access_control.snapshot
    engine.fronts.keys.watch(snapshot)
    text, key = new_key()
    engine.gateway.access_control.store.add(key, policy_of({}), by="cli:somebody")
    assert isinstance(await pair[0].call(AuthenticateCall, key=text), CallerResult)  # found by a second look at the store
    for front in pair:
        await front.hear(KeysChanged)
    engine.gateway.access_control.store.revoke(key.public_id, by="cli:somebody")
    await snapshot.renew()
    for front in pair:
        await front.hear(KeysChanged)
    assert (await pair[0].call(AuthenticateCall, key=text)).error == "InvalidKey"


async def test_an_expiry_is_told_when_it_comes_and_only_then(engine, pair):
    now = [0.0]
    keys = engine.fronts.keys
    keys.clock = lambda: now[0]
    keys.watch(engine.gateway.access_control.snapshot)
    text, key = new_key()
    engine.gateway.access_control.store.add(key, policy_of({"expires_at": "2100-01-01T00:00:00Z"}), by="cli:somebody")
    await engine.gateway.access_control.snapshot.renew()
    await pair[0].hear(KeysChanged)
    await pair[0].call(AuthenticateCall, key=text)
    keys.look()
    now[0] = 4_102_444_800.0
    keys.look()
    await pair[0].hear(KeysChanged)
    keys.look()
    assert pair[0].pushed.empty()


async def test_keys_that_were_read_too_long_ago_are_nobodys_in_any_front(engine, pair):
    snapshot, keys = engine.gateway.access_control.snapshot, engine.fronts.keys
    keys.watch(snapshot)
    await snapshot.background.close()  # else it would read them again
    snapshot.read_at -= engine.gateway.config.auth.max_snapshot_age_seconds + 1
    keys.look()
    for front in pair:
        await front.hear(KeysChanged)
    assert (await pair[0].call(AuthenticateCall, key=KEY)).error == "StoreUnavailable"
    await snapshot.renew()
    keys.look()
    await pair[1].hear(KeysChanged)
    assert isinstance(await pair[1].call(AuthenticateCall, key=KEY), CallerResult)


async def test_model_states_are_told_once_they_change(engine, fake, pair):
    engine.fronts.update()
    fake.state = Health("loading", "away", "upstream_unavailable", is_available=False)
    engine.fronts.update()
    for front in pair:
        states = await front.hear(ModelStates)
        if FAKE in states.models and states.models[FAKE].state == "ready":  # the first look told all
            states = await front.hear(ModelStates)
        assert list(states.models) == [FAKE]
        assert (states.models[FAKE].state, states.models[FAKE].health) == ("failed", fake.state)
    engine.fronts.update()
    assert all(front.pushed.empty() for front in pair)


class TestReload:
    @pytest.fixture
    def other(self, engine):
        """Another configuration: a further alias."""
        models = list(engine.gateway.config.models)
        models[0] = msgspec.structs.replace(models[0], aliases=("alias",))
        return msgspec.structs.replace(engine.gateway.config, models=tuple(models))

    async def test_every_front_is_asked_before_it_takes_effect(self, engine, pair, other):
        await engine.gateway.swap.renew(other)
        for front in pair:
            committed = await front.hear(Commit)
            assert committed.generation == front.configured[-1].generation == engine.gateway.generation.number
            assert config_of(front.configured[-1]) == other
        assert engine.committed == [other]

    async def test_one_front_that_refuses_refuses_for_all(self, engine, pair, other):
        before = engine.gateway.generation
        pair[1].refuses = "this cannot be"
        with pytest.raises(ConfigurationError, match="this cannot be"):
            await engine.gateway.swap.renew(other)
        assert engine.gateway.generation is before
        assert not engine.committed
        pair[1].refuses = None
        await engine.gateway.swap.renew(other)
        for front in pair:
            assert (await front.hear(Commit)).generation == engine.gateway.generation.number

    async def test_a_front_that_dies_meanwhile_stops_nothing(self, engine, pair, other):
        pair[1].is_mute = True
        renewing = asyncio.create_task(engine.gateway.swap.renew(other))
        await pair[1].hear(Configure)
        await pair[1].close()
        await renewing
        assert engine.committed == [other]

    async def test_a_front_that_connects_meanwhile_gets_both(self, engine, pair, other):
        pair[0].is_mute = True
        renewing = asyncio.create_task(engine.gateway.swap.renew(other))
        asked = await pair[0].hear(Configure)
        late = await engine.front(2)
        assert config_of(late.configured[0]) != other
        pair[0].is_mute = False
        pair[0].on_message(asked, b"")
        await renewing
        assert (await late.hear(Commit)).generation == engine.gateway.generation.number
        assert config_of(late.configured[-1]) == other
        late.channel.close()

    async def test_a_former_generation_lives_until_all_fronts_have_done_with_it(self, engine, pair, other):
        before = engine.gateway.generation
        await engine.gateway.swap.renew(other)
        assert isinstance(await pair[0].embed(["1"]), EmbedResult)  # of the former one
        pair[0].channel.send(Released(generation=before.number))
        await until(lambda: before.number not in engine.fronts.connections[0].generations.by_number)
        assert before.num_requests == 1
        await pair[1].close()
        await until(lambda: before not in engine.gateway.swap.retired)

    async def test_keys_are_those_of_the_new_configuration(self, engine, pair):
        await engine.gateway.swap.renew(msgspec.structs.replace(engine.gateway.config, auth=AuthSettings(mode="none")))
        for front in pair:
            await front.hear(Commit)
            await front.hear(KeysChanged)
        assert (await pair[0].call(AuthenticateCall, key="anything")).caller.public_id == "anonymous"
