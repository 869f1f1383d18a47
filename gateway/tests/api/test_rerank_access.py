"""Keys on the rerank road: scopes, limits, budgets, concurrency, usage, metrics and the log, each with a real key."""

import asyncio
import re

import pytest

from gateway.config import AdminSettings, ModelRow
from gateway.testing.fakes import FakeBackend, FakeReranker
from gateway.tests.api.conftest import client_of
from gateway.tests.api.keys import error_of, holder

BODY = {"model": "r", "query": "one two", "documents": ["three", "four five"]}  # 7 tokens: the query counts with each document
PATHS = ["/v1/rerank", "/v2/rerank", "/rerank"]


@pytest.fixture
def reranker():
    return FakeReranker()


@pytest.fixture
async def gateway(make, reranker, embedder):
    rows = (ModelRow(name="m", backend="fake"), ModelRow(name="r", backend="fake"))
    gateway = make(models=rows, backends=[FakeBackend(r=reranker, m=embedder)], admin=AdminSettings(enabled=True))
    await gateway.start()
    await gateway.load()
    yield gateway
    await gateway.close()


@pytest.mark.parametrize("path", PATHS)
async def test_a_key_is_needed(gateway, path):
    async with client_of(gateway) as stranger:
        reply = await stranger.post(path, json=BODY)
        assert error_of(reply) == (401, "invalid_request_error", None, None)
        assert reply.headers["www-authenticate"]


async def test_a_key_of_other_models_sees_no_reranker(gateway):
    async with holder(gateway, models=["m"]) as client:
        assert error_of(await client.post("/v1/rerank", json=BODY)) == (404, "invalid_request_error", "model", "model_not_found")
        unnamed = await client.post("/v1/rerank", json={**BODY, "model": None})
        assert error_of(unnamed) == (400, "invalid_request_error", "model", "missing_required_parameter")
    async with holder(gateway, models=["r"]) as client:
        assert (await client.post("/v1/rerank", json={**BODY, "model": None})).status_code == 200
        reply = await client.post("/rerank", json={"query": "a", "texts": ["b"]})
        assert reply.status_code == 200


async def test_tokens_are_charged_exactly_and_before_work(gateway, reranker):
    async with holder(gateway, tokens_per_minute=14, tokens_burst=14) as client:
        first = await client.post("/v1/rerank", json=BODY)
        assert (first.status_code, first.json()["usage"]["total_tokens"]) == (200, 7)
        assert first.headers["x-ratelimit-limit-tokens"] == "14"
        assert first.headers["x-ratelimit-remaining-tokens"] == "7"
        top = await client.post("/v1/rerank", json={**BODY, "query": "six seven", "top_n": 1})
        assert (top.status_code, top.headers["x-ratelimit-remaining-tokens"]) == (200, "0")
        num_embedded = reranker.num_embedded
        refused = await client.post("/v1/rerank", json={**BODY, "query": "eight nine"})
        assert error_of(refused) == (429, "tokens", None, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) >= 1
        assert reranker.num_embedded == num_embedded
        in_teis = await client.post("/rerank", json={"query": "ten", "texts": ["b"]})
        assert error_of(in_teis)[3] == "rate_limit_exceeded"  # before its body is read, nobody knows that it is TEI's


async def test_a_token_limit_that_is_found_out_by_the_body_is_written_in_teis_words(gateway):
    async with holder(gateway, tokens_per_minute=6, tokens_burst=3) as client:
        assert (await client.post("/rerank", json={"query": "a", "texts": ["b"]})).status_code == 200
        reply = await client.post("/rerank", json={"query": "a", "texts": ["c"]})
        assert (reply.status_code, reply.json()["error_type"]) == (429, "Overloaded")
        assert int(reply.headers["retry-after"]) >= 1


async def test_a_request_that_can_never_fit_is_refused_for_good(gateway):
    async with holder(gateway, tokens_per_minute=6, tokens_burst=6) as client:
        reply = await client.post("/v1/rerank", json=BODY)
        assert error_of(reply) == (400, "invalid_request_error", None, "request_exceeds_limit")


async def test_requests_a_minute_are_counted(gateway):
    async with holder(gateway, requests_per_minute=1, requests_burst=1) as client:
        assert (await client.post("/v2/rerank", json=BODY)).headers["x-ratelimit-remaining-requests"] == "0"
        assert error_of(await client.post("/v1/rerank", json=BODY))[3] == "rate_limit_exceeded"


async def test_a_budget_is_spent_by_scores(gateway):
    async with holder(gateway, token_budget=7) as client:
        assert (await client.post("/v1/rerank", json=BODY)).status_code == 200
        assert error_of(await client.post("/v1/rerank", json=BODY)) == (429, "insufficient_quota", None, "insufficient_quota")
        assert error_of(await client.post("/v1/embeddings", json={"model": "m", "input": "a"}))[3] == "insufficient_quota"


async def test_a_key_with_one_request_at_once_waits_for_its_turn(gateway, reranker):
    reranker.gate = asyncio.Event()
    async with holder(gateway, max_concurrent_requests=1) as client:
        first = asyncio.create_task(client.post("/v1/rerank", json=BODY))
        await reranker.is_waiting.wait()
        second = asyncio.create_task(client.post("/rerank", json={"query": "a", "texts": ["b"]}))
        while not gateway.generation.limiter.queue.num_waiting:
            await asyncio.sleep(0)
        assert len(reranker.prepared) == 1
        reranker.gate.set()
        assert [(await first).status_code, (await second).status_code] == [200, 200]


async def test_usage_is_recorded_by_key_and_model(gateway):
    async with holder(gateway, is_admin=True) as client:
        for path in PATHS:
            await client.post(path, json=BODY)
        await gateway.access_control.recorder.flush()
        [row] = (await client.get("/admin/usage", params={"key_id": client.public_id})).json()["data"]
        assert (row["model"], row["requests"], row["inputs"], row["tokens"]) == ("r", 3, 6, 21)


async def test_metrics_and_the_log_tell_of_it(gateway, capsys):
    async with holder(gateway) as client:
        await client.post("/v1/rerank", json=BODY)
        await client.post("/v1/rerank", json={**BODY, "model": "m"})
        metrics = (await client.get("/metrics")).text
        assert re.search(r'^gateway_requests_total\{model="r",outcome="ok"\} 1\.0$', metrics, flags=re.MULTILINE)
        assert re.search(r'^gateway_requests_total\{model="m",outcome="wrong_model_kind"\} 1\.0$', metrics, flags=re.MULTILINE)
        assert re.search(r'^gateway_http_requests_total\{.*route="/v1/rerank".*\} 1\.0$', metrics, flags=re.MULTILINE)
    lines = capsys.readouterr().out
    assert "route=/v1/rerank" in lines
    assert "one two" not in lines
    assert "four five" not in lines
