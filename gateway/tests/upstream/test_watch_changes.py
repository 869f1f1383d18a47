"""What callers and operators of a whole gateway see of a server whose model is changed."""

import asyncio
import base64

import numpy as np
import pytest

from gateway.backoff import Backoff
from gateway.embedding import failover
from gateway.testing import socket_client as client
from gateway.testing.upstream_server import Standin, Weights, serving_openai
from gateway.tests.upstream.test_upstream_gateway import listening

pytestmark = pytest.mark.timeout(90)
OLD, NEW = Weights("a"), Weights("b")
QUICK = {"probe_seconds": 0.2, "model": "default"}


def vector_of(reply):
    return np.frombuffer(base64.b64decode(reply.json()["data"][0]["embedding"]), dtype="<f4")


def is_of(reply, weights, text):
    return reply.status == 200 and np.allclose(vector_of(reply), weights.vector(text), atol=1e-5)


async def asked(address, text="a text", **more):
    return await client.posted(address, [text], encoding_format="base64", **more)


async def until(ask, is_right):
    async with asyncio.timeout(20):
        while not is_right(reply := await ask()):
            await asyncio.sleep(0.02)
    return reply


async def test_a_caller_gets_the_new_model_s_vectors_under_a_new_fingerprint_everywhere(tmp_path):
    async with (
        Standin(serving_openai(OLD)).serving() as server,
        listening(tmp_path, cache_bytes=1_000_000, m=("openai", {"url": server.url, **QUICK})) as address,
    ):
        before = await asked(address)
        assert is_of(before, OLD, "a text")
        server.answer = serving_openai(NEW)
        after = await until(lambda: asked(address), lambda reply: is_of(reply, NEW, "a text"))
        fingerprint = after.headers["x-gateway-fingerprint"]
        assert fingerprint != before.headers["x-gateway-fingerprint"]
        told = (await client.got(address, "/v1/models/m")).json()
        assert told["fingerprint"] == fingerprint
        metrics = (await client.got(address, "/metrics")).body.decode()
        assert f'fingerprint="{fingerprint}"' in metrics
        assert f'fingerprint="{before.headers["x-gateway-fingerprint"]}"' not in metrics


async def test_a_pinned_row_refuses_other_vectors_and_serves_again_when_its_own_are_back(tmp_path):
    async with Standin(serving_openai(OLD)).serving() as server:
        async with listening(tmp_path, m=("openai", {"url": server.url, **QUICK})) as address:
            pinned = (await asked(address)).headers["x-gateway-fingerprint"]
        row = {"url": server.url, **QUICK}
        async with pinned_gateway(tmp_path, row, pinned) as address:
            assert is_of(await asked(address), OLD, "a text")
            server.answer = serving_openai(NEW)
            refused = await until(lambda: asked(address), lambda reply: reply.status == 502)
            assert "other vectors than those that are pinned" in refused.json()["error"]["message"]
            assert refused.headers["x-should-retry"] == "false"
            ready = (await client.got(address, "/readyz")).json()
            assert (ready["status"], ready["trouble"]) == ("degraded", {"m": "other_fingerprint"})
            server.answer = serving_openai(OLD)
            back = await until(lambda: asked(address), lambda reply: reply.status == 200)
            assert is_of(back, OLD, "a text")
            assert back.headers["x-gateway-fingerprint"] == pinned


def pinned_gateway(tmp_path, row, fingerprint):
    from gateway.app import Gateway
    from gateway.config import AuthSettings, CacheSettings, Config, ModelRow, ServerSettings, StoreSettings
    from gateway.tests.upstream.test_upstream_gateway import Running

    config = Config(
        server=ServerSettings(port=0),
        auth=AuthSettings(mode="none"),
        cache=CacheSettings(max_bytes=1_000_000),
        store=StoreSettings(data_dir=str(tmp_path)),
        models=(ModelRow(name="m", backend="openai", fingerprint=fingerprint, settings=row),),
    )
    return Running(Gateway(config))


async def test_a_member_of_a_group_whose_model_is_changed_is_left_until_it_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr(failover, "CHECKS", Backoff(first_seconds=0.1, max_seconds=0.1))
    async with Standin(serving_openai(OLD)).serving() as one, Standin(serving_openai(OLD)).serving() as two:
        members = [{"backend": "openai", "name": name, "url": each.url, **QUICK} for name, each in (("one", one), ("two", two))]
        async with listening(tmp_path, cache_bytes=1_000_000, m=("group", {"members": members})) as address:
            assert (await asked(address)).headers["x-gateway-member"] == "one"
            one.answer = serving_openai(NEW)
            left = await until(lambda: asked(address), lambda reply: reply.headers.get("x-gateway-member") == "two")
            assert is_of(left, OLD, "a text")
            for number in range(5):
                assert is_of(await asked(address, f"text {number}"), OLD, f"text {number}")
            one.answer = serving_openai(OLD)
            back = await until(lambda: asked(address), lambda reply: reply.headers.get("x-gateway-member") == "one")
            assert is_of(back, OLD, "a text")


async def test_one_of_two_addresses_that_gives_others_is_said_by_readyz(tmp_path):
    async with Standin(serving_openai(OLD)).serving() as one, Standin(serving_openai(NEW)).serving() as two:
        row = {"urls": [one.url, two.url], "model": "default"}
        async with listening(tmp_path, m=("openai", row)) as address:
            ready = await client.got(address, "/readyz")
            assert (ready.status, ready.json()["status"], ready.json()["trouble"]) == (200, "degraded", {"m": "address_differs"})
            for number in range(10):
                assert is_of(await asked(address, f"text {number}"), OLD, f"text {number}")
