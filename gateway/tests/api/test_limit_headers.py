"""What a client sees of its limits: OpenAI's headers on every reply, and refusals in the contract's shape."""

import asyncio

import httpx
import pytest

from gateway.config import LimitSettings
from gateway.errors import Overloaded
from gateway.tests.api.conftest import KEY, Connection, client_of

NAMES = [f"x-ratelimit-{what}-{kind}" for kind in ("requests", "tokens") for what in ("limit", "burst", "remaining", "reset")]


@pytest.fixture
async def limited(make):
    """Makes a client of a gateway with limits for every key."""
    gateways = []

    async def build(**limits):
        gateways.append(make(limits=LimitSettings(**limits)))
        await gateways[-1].start()
        await gateways[-1].load()
        return client_of(gateways[-1], authorization=f"Bearer {KEY}")

    build.gateways = gateways
    yield build
    for gateway in gateways:
        await gateway.close()


async def posted(client: httpx.AsyncClient, text: str = "one two three", **fields) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": "m", "input": text, **fields})


def shown(reply):
    return {name: reply.headers[name] for name in NAMES if name in reply.headers}


async def test_every_reply_tells_the_limits_and_where_the_caller_stands(limited):
    client = await limited(requests_per_minute=6, requests_burst=3, tokens_per_minute=6000)
    reply = await posted(client)
    assert reply.status_code == 200
    told = shown(reply)
    assert list(told) == NAMES
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("6", "2")
    assert (told["x-ratelimit-limit-tokens"], told["x-ratelimit-remaining-tokens"]) == ("6000", "5997")
    assert (told["x-ratelimit-burst-requests"], told["x-ratelimit-burst-tokens"]) == ("3", "6000")
    assert 9 < float(told["x-ratelimit-reset-requests"].removesuffix("s")) <= 10
    assert 0 < int(told["x-ratelimit-reset-tokens"].removesuffix("ms")) <= 30
    wrong = await posted(client, text="")
    assert (wrong.status_code, wrong.headers["x-ratelimit-remaining-requests"]) == (400, "1")
    missing = await posted(client, model="other")
    assert (missing.status_code, missing.headers["x-ratelimit-remaining-requests"]) == (404, "0")
    refused = await posted(client)
    assert (refused.status_code, refused.headers["x-ratelimit-remaining-requests"]) == (429, "0")


async def test_a_limit_reached_is_answered_in_the_contracts_shape(limited):
    client = await limited(requests_per_minute=6, requests_burst=1)
    await posted(client)
    reply = await posted(client)
    assert reply.status_code == 429
    error = reply.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["param"], error["code"]) == ("requests", None, "rate_limit_exceeded")
    assert error["message"].startswith("Rate limit reached on requests per minute: limit 6, remaining 0, requested 1.")
    assert reply.headers["retry-after"] == "10"
    assert reply.headers["x-request-id"]
    assert not any(name.endswith("-tokens") for name in shown(reply))


async def test_without_limits_there_are_no_such_headers(limited):
    assert shown(await posted(await limited())) == {}


async def test_a_refused_request_s_body_is_not_read(limited):
    await posted(await limited(requests_per_minute=6, requests_burst=1))
    read = []

    async def body():
        read.append(True)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    connection = Connection(body)
    await limited.gateways[0](connection.scope, connection.receive, connection.send)
    assert (connection.status, read) == (429, [])


async def test_tokens_are_charged_before_the_work_and_refused_without_it(limited, embedder):
    client = await limited(tokens_per_minute=60, tokens_burst=5)
    assert (await posted(client, "one two three")).status_code == 200
    refused = await posted(client, "four five six")
    assert (refused.status_code, refused.json()["error"]["type"], refused.headers["retry-after"]) == (429, "tokens", "1")
    assert refused.headers["x-ratelimit-remaining-tokens"] == "2"
    never = await posted(client, "one two three four five six")
    assert (never.status_code, never.json()["error"]["code"]) == (400, "request_exceeds_limit")
    assert embedder.num_embedded == 1


async def test_a_request_above_the_burst_leaves_a_debt_and_no_negative_number(limited):
    client = await limited(tokens_per_minute=400_000)
    large = {"model": "m", "input": ["one " * 4000] * 100}
    served = await client.post("/v1/embeddings", json=large)
    assert (served.status_code, served.headers["x-ratelimit-burst-tokens"]) == (200, "300000")
    assert served.headers["x-ratelimit-remaining-tokens"] == "0"
    refused = await posted(client)
    assert (refused.status_code, refused.json()["error"]["type"], refused.headers["retry-after"]) == (429, "tokens", "15")
    assert refused.headers["x-ratelimit-remaining-tokens"] == "0"
    assert (await client.post("/v1/embeddings", json=large)).status_code == 429  # it fits later


async def test_a_request_above_the_minute_is_told_that_it_never_fits(limited):
    client = await limited(tokens_per_minute=400_000)
    never = await client.post("/v1/embeddings", json={"model": "m", "input": ["one " * 4001] * 100})
    assert (never.status_code, never.json()["error"]["code"]) == (400, "request_exceeds_limit")


async def test_work_that_never_ran_costs_nothing(limited, embedder):
    client = await limited(requests_per_minute=6, requests_burst=2, tokens_per_minute=60, tokens_burst=5)
    embedder.raises = Overloaded()
    for _ in range(5):
        reply = await posted(client)
        assert (reply.status_code, reply.headers["x-ratelimit-remaining-requests"]) == (503, "2")
        assert reply.headers["x-ratelimit-remaining-tokens"] == "5"
    embedder.raises = None
    assert (await posted(client)).status_code == 200


async def test_cached_inputs_cost_tokens_unless_they_need_not(limited):
    client = await limited(tokens_per_minute=6, tokens_burst=6)
    assert [(await posted(client)).status_code for _ in range(3)] == [200, 200, 429]
    generous = await limited(tokens_per_minute=6, tokens_burst=6, charge_cached=False)
    assert [(await posted(generous)).headers["x-ratelimit-remaining-tokens"] for _ in range(3)] == ["3", "3", "3"]


async def test_requests_at_once_are_limited(limited, embedder):
    client = await limited(max_concurrent_requests=1, max_wait_seconds=0)
    embedder.gate = asyncio.Event()
    first = asyncio.create_task(posted(client))
    await embedder.is_waiting.wait()
    refused = await posted(client, "other")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert 1000 <= int(refused.headers["retry-after-ms"]) <= 2000
    assert "concurrent requests: limit 1" in refused.json()["error"]["message"]
    embedder.gate.set()
    assert (await first).status_code == 200
    assert (await posted(client)).status_code == 200


async def test_requests_beyond_those_at_once_wait_their_turn_and_hold_no_place(limited, embedder):
    client = await limited(max_concurrent_requests=1, max_wait_seconds=30)
    gateway = limited.gateways[0]
    embedder.gate = asyncio.Event()
    first = asyncio.create_task(posted(client))
    await embedder.is_waiting.wait()
    others = [asyncio.create_task(posted(client, f"other {number}")) for number in range(3)]
    while gateway.generation.limiter.queue.num_waiting < 3:
        await asyncio.sleep(0)
    assert gateway.admission.num_requests == 1
    embedder.gate.set()
    assert [(await each).status_code for each in (first, *others)] == [200] * 4
    assert gateway.generation.limiter.queue.lines == {}


async def test_at_the_drain_those_that_wait_are_told_to_come_back(limited, embedder):
    client = await limited(max_concurrent_requests=1, max_wait_seconds=30)
    gateway = limited.gateways[0]
    embedder.gate = asyncio.Event()
    first = asyncio.create_task(posted(client))
    await embedder.is_waiting.wait()
    second = asyncio.create_task(posted(client, "other"))
    while not gateway.generation.limiter.queue.num_waiting:
        await asyncio.sleep(0)
    gateway.drain()
    assert ((await second).status_code, (await second).json()["error"]["code"]) == (503, "server_overloaded")
    embedder.gate.set()
    assert (await first).status_code == 200


async def test_what_was_limited_is_counted(limited):
    client = await limited(requests_per_minute=6, requests_burst=1)
    await posted(client)
    await posted(client)
    count = limited.gateways[0].metrics.registry.get_sample_value
    assert count("gateway_limited_total", {"limit": "requests"}) == 1
    assert count("gateway_requests_total", {"model": "unknown", "outcome": "rate_limit_exceeded"}) == 1


async def test_requests_and_refusals_are_counted_by_key(limited):
    client = await limited(requests_per_minute=6, requests_burst=2, tokens_per_minute=600, tokens_burst=5)
    [key] = limited.gateways[0].access_control.snapshot.configured
    statuses = [(await posted(client, text=text)).status_code for text in ("one", "a " * 6, "one")]
    assert statuses == [200, 400, 429]
    value = limited.gateways[0].metrics.registry.get_sample_value
    assert value("gateway_key_requests_total", {"key": key}) == 3
    assert value("gateway_key_refusals_total", {"key": key, "reason": "request_exceeds_limit"}) == 1
    assert value("gateway_key_refusals_total", {"key": key, "reason": "rate_limit_exceeded"}) == 1
    assert value("gateway_key_refusals_total", {"key": key, "reason": "ok"}) is None


async def test_models_and_probes_are_not_charged(limited):
    client = await limited(requests_per_minute=6, requests_burst=1)
    for path in ("/v1/models", "/livez", "/v1/models/m"):
        for _ in range(3):
            assert (await client.get(path)).status_code == 200
    assert (await posted(client)).status_code == 200
