"""An upstream is what it gives: whose vectors a caller gets, whatever stands behind an address, and changes there."""

import asyncio
import contextlib
import random

import numpy as np
import pytest

from gateway.embedding.cache import VectorCache
from gateway.errors import GatewayError, OperatorError, UpstreamError, UpstreamUnavailable
from gateway.metrics import Metrics
from gateway.testing.fakes import FakeClock
from gateway.testing.upstream_server import Said, Standin, Weights, openai_error, serving_openai, vectors_said
from gateway.tests.upstream.conftest import built, cached_over, embedded
from gateway.upstream.probe import TEXTS

pytestmark = pytest.mark.timeout(60)
PROBE_SECONDS = 60.0
CACHE_BYTES = 10_000_000


class Rig:
    """Rows over stand-ins, with one cache, one registry of spaces and a clock that is moved by hand."""

    def __init__(self, stack):
        self.stack = stack
        self.clock = FakeClock()
        self.cache = VectorCache(CACHE_BYTES)
        self.shared = {}
        self.metrics = Metrics()

    async def serve(self, answer, port=0):
        return await self.stack.enter_async_context(Standin(answer).serving(port=port))

    async def row(self, *servers, name="m", **settings):
        settings = {"model": "default", "probe_seconds": PROBE_SECONDS, "breaker_failures": 1000} | settings
        urls = [each if isinstance(each, str) else f"{each.url}/v1" for each in servers]
        remote = built("openai", name=name, urls=urls, shared=self.shared, clock=self.clock, metrics=self.metrics, **settings)
        self.stack.push_async_callback(remote.close)
        await remote.start()
        return remote, cached_over(remote, self.cache)


@pytest.fixture
async def rig():
    async with contextlib.AsyncExitStack() as stack:
        yield Rig(stack)


def same(vectors, weights, *texts):
    rows = np.stack([weights.vector(text) for text in texts])
    return np.linalg.norm(vectors.rows - rows, axis=1).max() < 0.02 if vectors.rows.shape == rows.shape else False


async def test_two_rows_of_one_name_at_two_addresses_have_each_their_own_vectors_cache_and_fingerprint(rig):
    one, other = Weights("a"), Weights("b")
    first, cached = await rig.row(await rig.serve(serving_openai(one)))
    second, also = await rig.row(await rig.serve(serving_openai(other)), name="n")
    assert same(await embedded(cached, "a text"), one, "a text")
    found = await embedded(also, "a text")
    assert found.num_hits == 0
    assert same(found, other, "a text")
    assert first.describe().fingerprint != second.describe().fingerprint


async def test_neighbours_so_near_that_their_signatures_agree_are_told_apart_too(rig):
    one, other = Weights("a"), Weights("a", near=0.03)
    first, cached = await rig.row(await rig.serve(serving_openai(one)))
    second, also = await rig.row(await rig.serve(serving_openai(other)), name="n")
    await embedded(cached, "a text")
    assert (await embedded(also, "a text")).num_hits == 0
    assert first.describe().fingerprint != second.describe().fingerprint


async def test_two_rows_of_the_same_server_share_their_cache(rig):
    server = await rig.serve(serving_openai(Weights("a")))
    first, cached = await rig.row(server)
    second, also = await rig.row(server, name="n")
    await embedded(cached, "a text")
    assert (await embedded(also, "a text")).num_hits == 1
    assert first.describe().fingerprint == second.describe().fingerprint


@pytest.mark.parametrize("noise", [0.0, 0.0005])
async def test_two_gateways_call_the_same_server_the_same_also_at_another_address(noise, rig):
    found = set()
    for number in range(2):
        async with contextlib.AsyncExitStack() as stack:
            gateway = Rig(stack)
            weights = Weights("a", noise=noise)
            weights.random = np.random.default_rng(number)
            remote, _ = await gateway.row(await gateway.serve(serving_openai(weights)))
            found |= (
                {remote.describe().fingerprint}
                if number == 0
                else {remote.describe().fingerprint, *remote.describe().alike} & found
            )
            assert remote.describe().fingerprint in found
    assert len(found) == 1


LLAMA = {"id": "m.gguf", "owned_by": "llamacpp", "created": 1, "meta": {"n_params": 22565376, "size": 45586944, "ftype": "F16"}}


async def test_what_a_server_tells_is_part_of_its_fingerprint_and_the_time_of_its_reply_is_not(rig):
    def telling(**changed):
        return serving_openai(Weights("a"), models=[LLAMA | changed])

    fingerprints = []
    for changed in ({}, {"created": 2}, {"meta": LLAMA["meta"] | {"ftype": "Q8_0"}}):
        remote, _ = await rig.row(await rig.serve(telling(**changed)), name=f"m{len(fingerprints)}")
        fingerprints.append(remote.describe().fingerprint)
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


async def test_a_model_swapped_behind_its_address_is_found_within_its_time_and_its_old_vectors_are_gone(rig):
    old, new = Weights("a"), Weights("b")
    server = await rig.serve(serving_openai(old))
    remote, cached = await rig.row(server)
    before = (await embedded(cached, "a text")).fingerprint
    server.answer = serving_openai(new)
    rig.clock.advance(PROBE_SECONDS / 2)
    assert (await embedded(cached, "a text")).num_hits == 1  # within its time
    rig.clock.advance(PROBE_SECONDS / 2 + 1)
    found = await embedded(cached, "a text")
    assert same(found, new, "a text")
    assert found.fingerprint == remote.describe().fingerprint != before
    assert rig.metrics.registry.get_sample_value("gateway_upstream_swaps_total", {"upstream": "m"}) == 1
    assert len(rig.cache.entries) == 1  # what was cached before is dropped


async def test_a_swap_back_has_the_old_fingerprint_and_nothing_that_was_cached_meanwhile(rig):
    old, new = Weights("a"), Weights("b")
    server = await rig.serve(serving_openai(old))
    _, cached = await rig.row(server)
    before = (await embedded(cached, "a text")).fingerprint
    for weights in (new, old):
        server.answer = serving_openai(weights)
        await embedded(cached, "another")  # cached under the vectors of before
        rig.clock.advance(PROBE_SECONDS + 1)
        for text in ("a text", "another"):
            found = await embedded(cached, text)
            assert same(found, weights, text)
    assert found.fingerprint == before


async def test_a_row_that_was_idle_for_long_serves_nothing_from_its_cache_before_a_probe(rig):
    old, new = Weights("a"), Weights("b")
    server = await rig.serve(serving_openai(old))
    _, cached = await rig.row(server)
    await embedded(cached, "a text")
    rig.clock.advance(3600)
    server.answer = serving_openai(new)
    rig.clock.advance(PROBE_SECONDS + 1)
    assert same(await embedded(cached, "a text"), new, "a text")


async def test_a_swap_during_an_outage_is_found_by_the_first_request_after_it(rig):
    old, new = Weights("a"), Weights("b")
    server = await rig.serve(serving_openai(old))
    _, cached = await rig.row(server)
    await embedded(cached, "a text")
    server.answer = lambda _: Said(raw=b"", cut_at=0)
    with pytest.raises(UpstreamError):
        await embedded(cached, "another")
    server.answer = serving_openai(new)
    found = await embedded(cached, "another")
    assert same(found, new, "another")
    assert same(await embedded(cached, "a text"), new, "a text")


async def test_while_it_cannot_be_probed_the_cache_serves_for_its_time_and_no_longer(rig):
    server = await rig.serve(serving_openai(Weights("a")))
    _, cached = await rig.row(server)
    await embedded(cached, "a text")
    server.answer = lambda _: Said(503)
    rig.clock.advance(PROBE_SECONDS - 1)
    assert (await embedded(cached, "a text")).num_hits == 1
    rig.clock.advance(2)
    with pytest.raises(UpstreamUnavailable):
        await embedded(cached, "a text")
    server.answer = serving_openai(Weights("a"))
    rig.clock.advance(2)
    assert same(await embedded(cached, "a text"), Weights("a"), "a text")


@pytest.mark.parametrize("dimensions", [16, 64])
async def test_a_swap_to_other_dimensions_costs_one_request_at_most(dimensions, rig):
    new = Weights("b", dimensions=dimensions)
    server = await rig.serve(serving_openai(Weights("a")))
    remote, cached = await rig.row(server)
    await embedded(cached, "a text")
    server.answer = serving_openai(new)
    with pytest.raises(UpstreamError, match=f"its vectors have {dimensions} dimensions and not 32"):
        await embedded(cached, "another")
    assert same(await embedded(cached, "a text", "another"), new, "a text", "another")
    assert remote.describe().dimensions == dimensions


@pytest.mark.parametrize("is_alone", [False, True])
async def test_a_swap_to_what_is_no_embedder_is_served_to_nobody_until_one_is_back(is_alone, rig):
    server = await rig.serve(serving_openai(Weights("a")))
    _, cached = await rig.row(server)
    await embedded(cached, "a text")
    row = np.zeros(32, dtype=np.float32)
    row[0] = 4.746425474877469e-06 * is_alone  # llama.cpp with a reranker
    server.answer = lambda request: vectors_said(request, [row] * len(request.body["input"])) if request.content else Said(404)
    rig.clock.advance(PROBE_SECONDS + 1)
    for _ in range(2):
        with pytest.raises(GatewayError):
            await embedded(cached, "a text")
    server.answer = serving_openai(Weights("b"))
    rig.clock.advance(10)
    assert same(await embedded(cached, "a text"), Weights("b"), "a text")


async def test_of_several_addresses_one_that_gives_others_is_not_used_and_said(rig):
    right, wrong = Weights("a"), Weights("b")
    good, bad = await rig.serve(serving_openai(right)), await rig.serve(serving_openai(wrong))
    remote, cached = await rig.row(good, bad)
    for number in range(20):
        assert same(await embedded(cached, f"text {number}"), right, f"text {number}")
    assert remote.health().trouble == "address_differs"
    value = rig.metrics.registry.get_sample_value
    shown = {
        each: value("gateway_upstream_address_used", {"upstream": "m", "address": f"{each.url[7:]}/v1"}) for each in (good, bad)
    }
    assert shown == {good: 1, bad: 0}


async def test_an_address_that_is_unavailable_at_the_start_is_proven_before_it_is_used(rig):
    good, bad = await rig.serve(serving_openai(Weights("a"))), await rig.serve(lambda _: Said(503))
    remote, cached = await rig.row(good, bad)
    assert [endpoint.proof for endpoint in remote.endpoints.endpoints] == ["used", "unproven"]
    bad.answer = serving_openai(Weights("b"))
    rig.clock.advance(10)
    await remote.watch.look()
    assert [endpoint.proof for endpoint in remote.endpoints.endpoints] == ["used", "other"]
    bad.answer = serving_openai(Weights("a"))
    rig.clock.advance(400)
    await remote.watch.look()
    assert [endpoint.proof for endpoint in remote.endpoints.endpoints] == ["used", "used"]
    assert same(await embedded(cached, "a"), Weights("a"), "a")


async def test_one_of_two_addresses_that_is_swapped_is_left_and_when_both_are_the_row_is(rig):
    old, new = Weights("a"), Weights("b")
    servers = [await rig.serve(serving_openai(old)) for _ in range(2)]
    remote, cached = await rig.row(*servers)
    before = remote.describe().fingerprint
    for number in range(10):
        await embedded(cached, f"text {number}")
    servers[0].answer = serving_openai(new)
    rig.clock.advance(PROBE_SECONDS + 1)
    for number in range(10):
        found = await embedded(cached, f"text {number}")
        assert same(found, old, f"text {number}")
        assert found.fingerprint == before
    servers[1].answer = serving_openai(new)
    rig.clock.advance(PROBE_SECONDS + 1)
    for number in range(10):
        assert same(await embedded(cached, f"text {number}"), new, f"text {number}")
    await remote.watch.look()
    assert [endpoint.proof for endpoint in remote.endpoints.endpoints] == ["used", "used"]


async def test_a_balancer_over_two_models_is_refused_at_load(rig):
    answers = [serving_openai(Weights("a")), serving_openai(Weights("b"))]
    count = iter(range(1000))
    server = await rig.serve(lambda request: answers[next(count) % 2](request) if request.content else Said(404))
    with pytest.raises(OperatorError, match="two models answer in turn"):
        await rig.row(server)


async def test_a_balancer_that_begins_to_alternate_is_served_from_no_more(rig):
    answers = [serving_openai(Weights("a")), serving_openai(Weights("b"))]
    server = await rig.serve(answers[0])
    _, cached = await rig.row(server)
    await embedded(cached, "a text")
    turns = iter(range(1, 1000))
    server.answer = lambda request: answers[next(turns) % 2](request) if request.content else Said(404)
    rig.clock.advance(PROBE_SECONDS + 1)
    with pytest.raises(GatewayError):
        await embedded(cached, "a text")
    server.answer = answers[1]
    rig.clock.advance(PROBE_SECONDS + 1)
    assert same(await embedded(cached, "a text"), Weights("b"), "a text")


async def test_company_that_changes_a_vector_makes_each_text_be_asked_for_alone(rig):
    weights = Weights("a", is_padded=True)
    _, cached = await rig.row(await rig.serve(serving_openai(weights)))
    texts = ["short", "a rather longer text", "x"]
    assert same(await embedded(cached, *texts), weights, *texts)


async def test_a_noisy_server_is_always_the_same(rig):
    weights = Weights("a", noise=0.01)
    remote, cached = await rig.row(await rig.serve(serving_openai(weights)))
    before = remote.describe().fingerprint
    for number in range(30):
        rig.clock.advance(PROBE_SECONDS * 0.95)
        await remote.watch.look()  # as its task does every second
        assert (await embedded(cached, "a text")).num_hits == (number > 0)
        await remote.watch.look()
    assert remote.describe().fingerprint == before


async def test_429_and_an_open_breaker_are_not_probed_into(rig):
    server = await rig.serve(serving_openai(Weights("a")))
    remote, cached = await rig.row(server, breaker_failures=1, retry=False)
    await embedded(cached, "a text")
    server.answer = lambda _: openai_error(429, "Rate limit reached", **{"retry-after": "30"})
    rig.clock.advance(PROBE_SECONDS + 1)
    with pytest.raises(UpstreamUnavailable):
        await embedded(cached, "a text")
    server.requests.clear()
    rig.clock.advance(20)
    with pytest.raises(UpstreamUnavailable, match="has too much to do") as refused:
        await embedded(cached, "a text")
    assert refused.value.headers()["Retry-After"] == "10"
    assert not server.requests
    rig.clock.advance(11)
    server.answer = lambda _: Said(500)
    with pytest.raises(GatewayError):
        await embedded(cached, "a text")
    server.requests.clear()
    with pytest.raises(UpstreamUnavailable, match="cooling down"):
        await embedded(cached, "a text")
    assert not server.requests
    server.answer = serving_openai(Weights("a"))
    rig.clock.advance(5)
    await embedded(cached, "a text")
    assert remote.watch.space is not None


async def test_a_reply_that_comes_after_the_swap_was_found_is_asked_for_again(rig):
    gate = asyncio.Event()
    old, new = serving_openai(Weights("a")), serving_openai(Weights("b"))

    def held(request):
        said = old(request)
        said.gate = gate
        return said

    server = await rig.serve(old)
    remote, cached = await rig.row(server)
    await embedded(cached, "cached")
    server.answer = held
    waiting = asyncio.create_task(embedded(cached, "cached", "late"))
    while not server.num_open:
        await asyncio.sleep(0.005)
    server.answer = new
    rig.clock.advance(PROBE_SECONDS + 1)
    await remote.verify()
    gate.set()
    found = await waiting
    assert same(found, Weights("b"), "cached", "late")
    assert found.fingerprint == remote.describe().fingerprint


async def test_in_the_background_only_what_had_traffic_is_probed(rig):
    server = await rig.serve(serving_openai(Weights("a")))
    remote, cached = await rig.row(server)
    server.requests.clear()
    rig.clock.advance(PROBE_SECONDS * 0.95)
    await remote.watch.look()
    assert not server.requests
    await embedded(cached, "a")
    await remote.watch.look()
    assert [request.body["input"] for request in server.requests if request.content] == [["a"], [TEXTS[0]]]


@pytest.mark.parametrize("seed", range(25))
async def test_no_arrangement_makes_a_caller_get_a_foreign_vector_beyond_its_time(seed, rig):
    """Swaps, outages, 429 and neighbours at one or two addresses, in any order, by a clock that jumps.

    But for a model that comes back before the next probe: two probes that find the same model cannot tell what was between them.
    """
    chance = random.Random(seed)
    models = [Weights("a"), Weights("b"), Weights("c", dimensions=16), Weights("a", near=0.05)]
    servers = [await rig.serve(serving_openai(models[0])) for _ in range(chance.choice([1, 1, 2]))]
    remote, cached = await rig.row(*servers, retry=chance.random() < 0.5)
    history = {server: [(rig.clock(), models[0])] for server in servers}  # since when it has which model
    texts = [f"text number {number}" for number in range(4)]
    num_served = 0
    for _ in range(60):
        event = chance.random()
        server = chance.choice(servers)
        if event < 0.12:
            lately = allowed_by({server: history[server]}, rig.clock(), 2 * PROBE_SECONDS)
            model = chance.choice([each for each in models if each not in lately] or [history[server][-1][1]])
            history[server].append((rig.clock(), model))
            server.answer = serving_openai(model)
        elif event < 0.18:
            server.answer = chance.choice([lambda _: Said(503), lambda _: Said(raw=b"", cut_at=0), lambda _: Said(429)])
        elif event < 0.26:
            server.answer = serving_openai(history[server][-1][1])
        elif event < 0.45:
            rig.clock.advance(chance.choice([1, 10, 40, 61, 300]))
        elif event < 0.55:
            await remote.watch.look()
        else:
            asked = chance.sample(texts, chance.randint(1, 3))
            try:
                found = await embedded(cached, *asked)
            except GatewayError:
                continue
            num_served += 1
            allowed = allowed_by(history, rig.clock(), PROBE_SECONDS)
            for row, text in zip(found.rows, asked, strict=True):
                assert any(is_of(row, model, text) for model in allowed), (seed, text)
    assert num_served


def is_of(row, model, text):
    expected = model.vector(text)
    return row.shape == expected.shape and np.linalg.norm(row - expected) < 0.02


def allowed_by(history, now, seconds):
    """The models each server had within the last seconds."""
    found = []
    for changes in history.values():
        for index, (_, model) in enumerate(changes):
            ended = changes[index + 1][0] if index + 1 < len(changes) else now
            if ended >= now - seconds:
                found.append(model)
    return found


async def test_a_change_that_one_row_finds_is_known_at_once_to_all_that_share_its_server(rig):
    server = await rig.serve(serving_openai(Weights("a")))
    _, cached = await rig.row(server)
    _, also = await rig.row(server, name="n")
    await embedded(cached, "a text")
    rig.clock.advance(PROBE_SECONDS / 2)
    await embedded(also, "a text")
    server.answer = serving_openai(Weights("b"))
    rig.clock.advance(PROBE_SECONDS / 2 + 1)
    await embedded(cached, "a text")
    found = await embedded(also, "a text")
    assert same(found, Weights("b"), "a text")
    assert found.fingerprint == (await embedded(cached, "a text")).fingerprint


async def test_a_digest_that_ollama_tells_otherwise_is_a_change_whatever_the_vectors(rig):
    digest = "0a109f422b47"

    def answer(request):
        if request.path == "/api/tags":
            return Said(body={"models": [{"name": "default:latest", "model": "default:latest", "digest": digest}]})
        return Said(body={"embeddings": Weights("a").rows(request.body["input"]).tolist()})

    server = await rig.serve(answer)
    settings = {"model": "default", "probe_seconds": PROBE_SECONDS}
    remote = built("ollama", url=server.url, shared=rig.shared, clock=rig.clock, **settings)
    rig.stack.push_async_callback(remote.close)
    await remote.start()
    before = remote.describe().fingerprint
    await embedded(remote, "a")
    digest = "ffffffffffff"
    rig.clock.advance(PROBE_SECONDS + 1)
    await embedded(remote, "a")
    assert remote.describe().fingerprint != before


async def test_what_came_while_nobody_probed_is_not_served_from_the_cache_though_the_old_model_is_back(rig):
    old, new = Weights("a"), Weights("b")
    server = await rig.serve(serving_openai(old))
    _, cached = await rig.row(server)
    server.answer = serving_openai(new)
    await embedded(cached, "a text")
    server.answer = serving_openai(old)
    rig.clock.advance(PROBE_SECONDS + 1)
    assert same(await embedded(cached, "a text"), old, "a text")
