"""The engine process answers each message of a front, over a real channel."""

import asyncio

import numpy as np
import pytest

from gateway import tracing
from gateway.access.keys.key import Allowance, Caller
from gateway.calls.engine_message import (
    AuthenticateCall,
    BudgetCall,
    CallerResult,
    CallFailure,
    ChargeLease,
    DecodeCall,
    DecodeResult,
    Done,
    EmbedPrepared,
    InfoCall,
    LeaseState,
    ModelInfo,
    PrepareCall,
    PreparedResult,
    ReadyCall,
    RecordUse,
    TokenizeCall,
    TokenizeResult,
    WindowsWanted,
)
from gateway.calls.message import CancelCall, EmbedCall, EmbedResult
from gateway.config import TraceSettings
from gateway.embedding.embedder import Inputs
from gateway.testing.fakes import FakeEmbedder, hashed
from gateway.tests.api.collector import collecting
from gateway.tests.api.faulty import embedded, metric
from gateway.tests.processes.engine_links import FAKE, KEY, LOCAL, config_of, running


@pytest.fixture
def fake():
    return FakeEmbedder()


@pytest.fixture
async def engine(tmp_path, fake):
    async with running(tmp_path, fake=fake) as engine:
        yield engine


@pytest.fixture
async def front(engine):
    front = await engine.front()
    yield front
    front.channel.close()


def inputs_of(*texts):
    return Inputs(list(texts), is_array=True, caller="a", deadline=0.0)


async def until(is_true):
    async with asyncio.timeout(20):
        while not is_true():
            await asyncio.sleep(0.002)


async def test_a_front_that_connects_gets_the_configuration_in_effect(engine, front):
    [configured] = front.configured
    assert config_of(configured) == engine.gateway.config
    assert configured.generation == front.generation == engine.gateway.generation.number
    assert [(each.state, each.is_tokenized_here) for each in configured.models] == [("ready", True), ("ready", False)]
    assert configured.models[LOCAL].description == engine.local.describe()
    assert configured.methods["/v1/models"] == "GET, HEAD, OPTIONS"


async def test_texts_are_prepared_and_then_embedded(front):
    number, answered = front.begin(
        PrepareCall, generation=front.generation, model=FAKE, seconds=9, inputs=inputs_of("a b", "a b", "c")
    )
    prepared, _ = await answered
    assert isinstance(prepared, PreparedResult)
    assert (prepared.token_counts, prepared.is_long, prepared.rule) == ([2, 2, 1], [False] * 3, "chunk")
    done = await front.call(EmbedPrepared, number=number)
    assert (type(done), done.dimensions, done.num_hits, done.token_counts) == (EmbedResult, 8, 0, [2, 2, 1])
    np.testing.assert_allclose(front.rows.reshape(-1, 8), [hashed(text, 8) for text in ("a b", "a b", "c")])


async def test_what_was_prepared_is_kept_until_it_is_embedded_or_cancelled_or_late(engine, front):
    fields = {"generation": front.generation, "model": FAKE, "inputs": inputs_of("a")}
    [connection] = engine.fronts.connections.values()
    for seconds in (9, 9, 0.01):
        number, answered = front.begin(PrepareCall, seconds=seconds, **fields)
        await answered
    assert len(connection.prepared.kept) == 3
    front.channel.send(CancelCall(number=number - 2))
    await until(lambda: len(connection.prepared.kept) == 2)
    await asyncio.sleep(0.01)
    connection.prepared.drop_late()
    assert list(connection.prepared.kept) == [number - 4]
    late = await front.call(EmbedPrepared, number=number)
    assert (type(late), late.error) == (CallFailure, "DeadlinePassed")


async def test_a_cancelled_call_leaves_the_embedder(fake, front):
    number, answered = front.begin(PrepareCall, generation=front.generation, model=FAKE, seconds=9, inputs=inputs_of("a"))
    await answered
    fake.gate = asyncio.Event()
    _, embedding = front.begin(EmbedPrepared, number=number)
    await fake.is_waiting.wait()
    embedding.cancel()  # the channel sends CancelCall
    await until(lambda: fake.num_cancelled == 1)


async def test_tokens_and_texts(front):
    about = {"generation": front.generation, "model": LOCAL, "seconds": 9}
    tokens = await front.call(TokenizeCall, inputs=inputs_of("1 2"), add_special_tokens=True, **about)
    assert isinstance(tokens, TokenizeResult)
    [found] = tokens.texts
    assert (found.pieces, found.offsets) == (["1", "2"], [(0, 1), (2, 3)])
    ids = Inputs([""], is_array=True, caller="a", deadline=0.0, token_ids=[found.ids])
    assert await front.call(DecodeCall, inputs=ids, skip_special_tokens=True, **about) == DecodeResult(number=3, texts=["1 2"])


async def test_a_known_key_is_a_caller_and_an_unknown_one_is_refused(front):
    answer = await front.call(AuthenticateCall, key=KEY)
    assert isinstance(answer, CallerResult)
    assert answer.caller.public_id.startswith("env-")
    refused = await front.call(AuthenticateCall, key="another")
    assert (type(refused), refused.error) == (CallFailure, "InvalidKey")
    assert KEY not in repr(AuthenticateCall(number=1, key=KEY))


async def test_use_is_recorded_and_a_budget_is_spent(engine, front):
    caller = Caller("k", Allowance(token_budget=10))
    assert isinstance(await front.call(BudgetCall, caller=caller), Done)
    front.channel.send(RecordUse(caller=caller, model="m", num_inputs=1, num_tokens=10, num_cached_tokens=0))
    refused = await front.call(BudgetCall, caller=caller)
    assert (type(refused), refused.error) == (CallFailure, "InsufficientQuota")
    assert metric(engine.gateway, "gateway_key_tokens_total", key="k") == 10


async def test_info_of_a_model_that_a_front_tokenises_for_and_of_one_that_it_does_not(engine, front):
    found = await front.call(InfoCall, generation=front.generation, model=LOCAL)
    assert isinstance(found, ModelInfo)
    assert (found.info.description, found.info.network) == (engine.local.describe(), engine.local.info.network)
    assert found.info.tokenizer_json == engine.local.tokenizer.to_json()
    assert (await front.call(InfoCall, generation=front.generation, model=FAKE)).info is None


async def test_a_model_that_is_ready_is_ready_at_once(front):
    assert isinstance(await front.call(ReadyCall, generation=front.generation, model=FAKE, name="x", seconds=1), Done)


@pytest.mark.parametrize("fields", [{"generation": 99, "model": FAKE}, {"generation": 1, "model": 7}])
async def test_a_configuration_that_is_gone_is_a_503(front, fields):
    answer = await front.call(ReadyCall, name="x", seconds=1, **fields)
    assert (type(answer), answer.error) == (CallFailure, "Overloaded")


async def test_windows_are_embedded_and_found_again(engine, front):
    first = await front.embed(["1 2", "3"])
    assert (type(first), first.dimensions, first.num_hits, first.num_cached_tokens) == (EmbedResult, 4, 0, 0)
    np.testing.assert_allclose(front.rows.reshape(-1, 4), [embedded("1 2"), embedded("3")], atol=1e-6)
    again = await front.embed(["3", "4"])
    assert (again.num_hits, again.num_cached_tokens, again.token_counts) == (1, 1, [1, 1])
    np.testing.assert_allclose(front.rows.reshape(-1, 4), [embedded("3"), embedded("4")], atol=1e-6)
    assert sum(map(len, engine.encoder.batches)) == 3
    assert [metric(engine.gateway, "gateway_cache_lookups_total", model="m", result=each) for each in ("hit", "miss")] == [1, 3]


async def test_hits_are_counted_as_the_request_has_them(engine, front):
    await front.embed(["1"])
    again = await front.embed(["1", "2"], places=[0, 1, 0, 1])
    assert (again.num_hits, again.num_cached_tokens) == (2, 2)
    assert len(front.rows) == 2 * 4
    assert metric(engine.gateway, "gateway_cache_lookups_total", model="m", result="repeated") == 1


async def test_other_vectors_than_those_asked_for_are_refused(front):
    answer = await front.embed(["1"], fingerprint="f" * 24)
    assert (type(answer), answer.error) == (CallFailure, "Overloaded")


async def test_an_input_without_a_vector_is_named_as_the_client_knows_it(front):
    answer = await front.embed(["1", "nan"])
    assert (answer.error, answer.attributes["where"]) == ("Unembeddable", "input[1]")


async def test_a_payload_that_is_no_windows_fails_that_call_alone(front):
    fields, _ = front.embed_fields(["1"])
    broken = await front.call(EmbedCall, b"\0" * 40, **fields)
    assert (type(broken), broken.error) == (CallFailure, "InternalError")
    assert isinstance(await front.embed(["1"]), EmbedResult)


async def test_a_lease_is_charged_by_the_call_that_embeds(engine, front):
    caller = Caller("k", Allowance(tokens_per_minute=60, tokens_burst=6, requests_per_minute=60, requests_burst=2))
    lease, entered = await front.enter(caller)
    assert (type(entered), entered.state.requests_debt > 0, entered.state.tokens_debt) == (LeaseState, True, 0)
    done = await front.embed(["1 2 3"], lease=lease)
    assert done.state.tokens_debt > 0
    refused = await front.embed(["4 5 6 7"], lease=lease)
    assert (refused.error, refused.state.refused) == ("RateLimited", "tokens")
    assert await front.exit(lease) == LeaseState(number=7, state=refused.state)
    assert engine.num_running(caller) == 0


async def test_cached_tokens_are_charged_as_the_settings_say(engine, front):
    caller = Caller("k", Allowance(tokens_per_minute=60, tokens_burst=6))
    await front.embed(["1 2 3"])
    lease, _ = await front.enter(caller)
    charged = await front.embed(["1 2 3"], lease=lease)
    assert (charged.state.tokens_debt > 0) == engine.gateway.config.limits.charge_cached


async def test_tokens_may_be_charged_without_vectors(front):
    caller = Caller("k", Allowance(tokens_per_minute=60, tokens_burst=6))
    lease, _ = await front.enter(caller)
    assert (await front.call(ChargeLease, lease=lease, num_tokens=5)).state.tokens_debt > 0
    refused = await front.call(ChargeLease, lease=lease, num_tokens=5)
    assert (refused.error, refused.state.refused) == ("RateLimited", "tokens")


async def test_a_call_without_windows_is_answered_by_the_cache_alone(engine, front):
    fields, payload = front.embed_fields(["1 2", "3"])
    assert await front.call(EmbedCall, b"", **fields) == WindowsWanted(number=1)
    embedded_first = await front.call(EmbedCall, payload, **fields)
    rows = front.rows.tolist()
    again = await front.call(EmbedCall, b"", **fields)
    assert (embedded_first.num_hits, again.num_hits, again.num_cached_tokens) == (0, 2, 3)
    assert front.rows.tolist() == rows
    more, _ = front.embed_fields(["1 2", "4"])
    assert isinstance(await front.call(EmbedCall, b"", **more), WindowsWanted)


class Calling(FakeEmbedder):
    """Calls another server, as far as traces go."""

    async def embed(self, prepared):
        with tracing.call("POST", {}) as self.headers:
            tracing.stage("upstream", 0.0, 1.0)
            return await super().embed(prepared)


async def test_calls_to_other_servers_belong_to_the_trace_of_the_fronts_request(tmp_path):
    """A front adds the stages by itself: of the answer."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with collecting() as (collector, endpoint):
        async with running(tmp_path, fake=(fake := Calling()), traces=TraceSettings(endpoint=endpoint)) as engine:
            front = await engine.front()
            about = {"generation": front.generation, "model": FAKE, "seconds": 9, "inputs": inputs_of("a")}
            number, prepared = front.begin(PrepareCall, trace={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}, **about)
            await prepared
            await front.call(EmbedPrepared, number=number)
            front.channel.close()
    assert fake.headers["traceparent"].split("-")[1] == trace
    assert [(span.name, span.trace_id.hex()) for span in collector.spans] == [("POST", trace)]
