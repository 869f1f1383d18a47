"""Rerank through whole gateways: one before a server, and one before that gateway, which gives the same scores."""

import json

import numpy as np
import pytest

from gateway.testing import socket_client as client
from gateway.testing.rerank_server import COHERE, LLAMA, TEI, RerankWeights, pair_tokens, sigmoid
from gateway.testing.upstream_server import Said, Standin
from gateway.tests.upstream.test_upstream_gateway import listening

pytestmark = pytest.mark.timeout(90)
QUERY = "what lives in the deep sea"
DOCUMENTS = ["paper", "whales live in the deep sea", "the sea"]
LOGITS = RerankWeights().logits(QUERY, DOCUMENTS)


async def reranked(address, documents=DOCUMENTS, *, path="/v1/rerank", **fields):
    content = json.dumps({"model": "r", "query": QUERY, "documents": documents, **fields}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\nconnection: close\r\n"
    return await client.exchanged(address, f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)


def scores_of(reply):
    assert reply.status == 200, reply.body
    found = {each["index"]: each["relevance_score"] for each in reply.json()["results"]}
    return [found[index] for index in sorted(found)]


def row(url, **more):
    return "openai", {"url": url, "task": "rerank", **more}


def rows_for(origin):
    """A gateway speaks to another in its own words, or in TEI's."""
    return {"r": row(f"{origin}/v1"), "t": ("tei", {"url": origin, "task": "rerank"})}


async def test_a_gateway_before_a_gateway_before_a_server_gives_the_server_s_own_scores_and_fingerprint(tmp_path):
    async with (
        Standin(LLAMA.answering()).serving() as server,
        listening(tmp_path / "inner", cache_bytes=1_000_000, r=row(server.url)) as inner,
        listening(tmp_path / "outer", cache_bytes=1_000_000, **rows_for("http://{}:{}".format(*inner))) as outer,
    ):
        replies = [await reranked(inner), await reranked(outer), await reranked(outer, model="t")]
        for reply in replies:
            np.testing.assert_allclose(scores_of(reply), [sigmoid(logit) for logit in LOGITS], atol=1e-6)
            assert [each["index"] for each in reply.json()["results"]] == [1, 2, 0]
        assert len({reply.headers["x-gateway-fingerprint"] for reply in replies}) == 1
        assert scores_of(await reranked(outer, raw_scores=True)) == pytest.approx(LOGITS, rel=1e-6)
        assert (await reranked(outer)).headers["x-gateway-cache"] == "hits=3"
        other_query = await reranked(outer, query="paper", raw_scores=True)
        assert scores_of(other_query) == pytest.approx(RerankWeights().logits("paper", DOCUMENTS), rel=1e-6)

        long = "river stone paper " * 400
        for address in (inner, outer):
            for fields, param in (({"documents": ["a", long, "b"]}, "documents"), ({"query": long}, "query")):
                refused = await reranked(address, **fields)
                assert (refused.status, refused.json()["error"]["code"]) == (400, "context_length_exceeded"), refused.body
                assert refused.json()["error"]["param"] == param
            assert "'documents[1]'" in (await reranked(address, ["a", long, "b"])).json()["error"]["message"]
        models = (await client.got(outer, "/v1/models")).json()["data"]
        assert [each["kind"] for each in models] == ["reranker", "reranker"]
        wrong = await client.posted(outer, ["a"], model="r")
        assert (wrong.status, wrong.json()["error"]["code"]) == (400, "wrong_model_kind")


async def test_usage_scores_and_groups_of_two_kinds_of_server(tmp_path):
    async with Standin(TEI.answering()).serving() as tei, Standin(COHERE.answering()).serving() as cohere:
        members = [
            {"name": "tei", "backend": "tei", "url": tei.url, "task": "rerank"},
            {"name": "cohere", "backend": "openai", "url": cohere.url, "task": "rerank", "breaker_failures": 1},
        ]
        async with listening(tmp_path, r=("group", {"members": members})) as address:
            reply = await reranked(address)
            assert reply.headers["x-gateway-member"] == "tei"
            assert pair_tokens(QUERY, DOCUMENTS) in json_numbers(reply.json())
            tei.answer = lambda _: Said(500, b"boom")
            other = await reranked(address)
            assert other.headers["x-gateway-member"] == "cohere"
            np.testing.assert_allclose(scores_of(other), scores_of(reply), atol=1e-6)


def json_numbers(value):
    if isinstance(value, dict | list):
        return [number for each in (value.values() if isinstance(value, dict) else value) for number in json_numbers(each)]
    return [value]


async def test_a_server_that_fails_is_told_and_cools_down(tmp_path):
    async with (
        Standin(LLAMA.answering()).serving() as server,
        listening(tmp_path, r=row(server.url, breaker_failures=1, retry=False)) as address,
    ):
        server.answer = lambda _: Said(500, b"boom")
        failed = [await reranked(address), await reranked(address)]
        told = [(each.status, each.json()["error"]["code"]) for each in failed]
    assert told == [(502, "upstream_error"), (503, "upstream_unavailable")]
