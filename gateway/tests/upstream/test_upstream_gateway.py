"""Upstreams behind the whole gateway: what clients see, and that one which dies hurts nobody else's."""

import asyncio
import base64
import json

import numpy as np
import pytest

from gateway.app import Gateway
from gateway.build import BUILTIN_BACKENDS
from gateway.config import AuthSettings, CacheSettings, Config, ModelRow, ServerSettings, StoreSettings
from gateway.testing import socket_client as client
from gateway.testing import upstream_server as standin
from gateway.testing.fakes import FakeBackend, FakeEmbedder, hashed
from gateway.testing.gateway_thread import served
from gateway.testing.upstream_server import Said, Standin

pytestmark = pytest.mark.timeout(90)
FALLEN = {"upstream_unavailable": 503, "upstream_error": 502}


def gateway_of(tmp_path, *, cache_bytes=0, backends=BUILTIN_BACKENDS, **rows):
    """A gateway of models `name: (backend, settings)`."""
    models = tuple(ModelRow(name=name, backend=backend, settings=settings) for name, (backend, settings) in rows.items())
    return Gateway(
        Config(
            server=ServerSettings(port=0),
            auth=AuthSettings(mode="none"),
            cache=CacheSettings(max_bytes=cache_bytes),
            store=StoreSettings(data_dir=str(tmp_path)),
            models=models,
        ),
        backends=backends,
    )


def listening(tmp_path, **rows):
    """`served` waits for the gateway to be ready, which it cannot be on the loop of the stand-ins: another thread waits."""
    return Running(gateway_of(tmp_path, **rows))


class Running:
    def __init__(self, gateway):
        self.context = served(gateway)

    async def __aenter__(self):
        return await asyncio.to_thread(self.context.__enter__)

    async def __aexit__(self, *error):
        return await asyncio.to_thread(self.context.__exit__, *error)


async def test_ollamas_door_of_another_gateway_is_an_ollama(tmp_path):
    behind = gateway_of(tmp_path / "behind", backends=[FakeBackend(m=FakeEmbedder())], m=("fake", {}))
    async with Running(behind) as (host, port):
        row = {"url": f"http://{host}:{port}", "model": "M:latest"}
        async with listening(tmp_path / "front", theirs=("ollama", row)) as address:
            reply = await client.posted(address, ["one text", "another"], model="theirs")
            assert reply.status == 200, reply.body
            assert reply.json()["usage"]["prompt_tokens"] == 3
            rows = np.array([each["embedding"] for each in reply.json()["data"]], np.float32)
            np.testing.assert_allclose(rows, [hashed("one text", 8), hashed("another", 8)], atol=1e-6)


async def test_every_kind_of_upstream_is_one_contract(tmp_path):
    async with (
        Standin(standin.openai).serving() as openai,
        Standin(standin.ollama).serving() as ollama,
        Standin(standin.tei).serving() as tei,
    ):
        rows = {"o": ("openai", {"url": openai.url}), "l": ("ollama", {"url": ollama.url}), "t": ("tei", {"url": tei.url})}
        async with listening(tmp_path, **rows) as address:
            for name in rows:
                reply = await client.posted(address, ["one text", "another"], model=name, encoding_format="base64", dimensions=4)
                assert reply.status == 200, reply.body
                body = reply.json()
                assert [item["index"] for item in body["data"]] == [0, 1]
                assert (body["model"], body["usage"]) == (name, {"prompt_tokens": 7, "total_tokens": 7})
                vectors = np.stack([np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4") for item in body["data"]])
                expected = standin.vectors(["one text", "another"])[:, :4]
                np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
                assert reply.headers["server-timing"].startswith("upstream;dur=")
                assert "x-gateway-fingerprint" in reply.headers


async def test_token_arrays_reach_an_upstream_as_text(tmp_path):
    async with Standin(standin.openai).serving() as server, listening(tmp_path, m=("openai", {"url": server.url})) as address:
        reply = await client.posted(address, [[15339, 1917]])
        assert reply.status == 200
        assert server.requests[-1].body["input"] == ["hello world"]


async def test_the_true_usage_is_told_metered_and_the_same_from_the_cache(tmp_path):
    async with (
        Standin(standin.openai).serving() as server,
        listening(tmp_path, cache_bytes=1_000_000, m=("openai", {"url": server.url})) as address,
    ):
        text = "a text of a few words that are " + "rather long " * 20
        first, again = await client.posted(address, [text]), await client.posted(address, [text])
        assert first.json()["usage"] == again.json()["usage"] == {"prompt_tokens": 50, "total_tokens": 50}
        assert again.headers["x-gateway-cache"] == "hits=1"
        metrics = (await client.got(address, "/metrics")).body.decode()
        assert 'gateway_input_tokens_total{model="m"} 100.0' in metrics
        assert 'gateway_estimated_tokens_total{model="m"} 0.0' in metrics
        server.answer = lambda request: standin.openai(request, usage=None)
        reply = await client.posted(address, ["a" * 40])
        assert reply.json()["usage"]["prompt_tokens"] == 12
        metrics = (await client.got(address, "/metrics")).body.decode()
        assert 'gateway_estimated_tokens_total{model="m"} 12.0' in metrics


@pytest.mark.parametrize(
    ("said", "status", "kind", "code", "should_retry"),
    [
        (Said(500, {"error": "boom"}), 502, "server_error", "upstream_error", "true"),
        (Said(401), 502, "server_error", "upstream_error", "false"),
        (Said(200, b"<html>"), 502, "server_error", "upstream_error", "false"),
        (Said(429, headers={"retry-after": "7"}), 503, "server_error", "upstream_unavailable", None),
        (
            standin.openai_error(400, "maximum context length is 99 tokens"),
            400,
            "invalid_request_error",
            "context_length_exceeded",
            None,
        ),
        (Said(400, {"error": "embedding contains NaN or Inf values"}), 500, "server_error", "unembeddable_input", "false"),
    ],
)
async def test_its_failures_reach_clients_in_the_contract_s_shape(tmp_path, said, status, kind, code, should_retry):
    async with Standin(standin.openai).serving() as server, listening(tmp_path, m=("openai", {"url": server.url})) as address:
        server.answer = lambda _: said
        reply = await client.posted(address, ["a"])
        error = reply.json()["error"]
        assert list(error) == client.ERROR_KEYS
        assert (reply.status, error["type"], error["code"]) == (status, kind, code)
        assert reply.headers.get("x-should-retry") == should_retry
        if status == 503:
            assert reply.headers["retry-after"] == "7"


async def test_an_upstream_killed_under_load_hurts_only_its_own_callers_and_comes_back(tmp_path):
    async with Standin(standin.openai).serving() as good, Standin(standin.ollama).serving() as ill:
        rows = {"good": ("openai", {"url": good.url}), "ill": ("ollama", {"url": ill.url, "breaker_seconds": 0.2})}
        async with listening(tmp_path, **rows) as address:
            replies = {"good": [], "ill": []}
            is_over = asyncio.Event()

            async def ask(name, number):
                while not is_over.is_set():
                    replies[name].append(await client.posted(address, [f"text {number} {len(replies[name])}"], model=name))
                    await asyncio.sleep(0.002)

            callers = [asyncio.create_task(ask(name, number)) for name in replies for number in range(4)]
            await client.until(lambda: min(map(len, replies.values())) > 20, address)
            ill.answer = lambda _: Said(raw=b"", cut_at=0)
            before = {name: len(found) for name, found in replies.items()}
            await client.until(lambda: all(len(found) > before[name] + 40 for name, found in replies.items()), address)
            ready = await client.got(address, "/readyz")
            assert (ready.status, (await client.got(address, "/livez")).status) == (200, 200)
            refused = [reply for reply in replies["ill"] if reply.status != 200]
            assert refused
            ill.answer = standin.ollama
            healed = len(replies["ill"])
            await client.until(lambda: any(reply.status == 200 for reply in replies["ill"][healed:]), address)
            is_over.set()
            await asyncio.gather(*callers)
            assert {reply.status for reply in replies["good"]} == {200}
            for reply in replies["ill"]:
                assert reply.status == 200 or FALLEN[reply.json()["error"]["code"]] == reply.status
            assert json.loads(refused[-1].body)["error"]["code"] == "upstream_unavailable"  # at once, without being sent


async def test_what_a_server_takes_is_learned_and_readyz_and_metrics_name_the_setting(tmp_path):
    def answer(request):
        is_large = request.method == "POST" and len(request.body["input"]) > 10
        return Said(413, b"<html><h1>413 Request Entity Too Large</h1></html>") if is_large else standin.openai(request)

    async with Standin(answer).serving() as server, listening(tmp_path, m=("openai", {"url": server.url})) as address:
        reply = await client.posted(address, [f"text {number}" for number in range(64)], model="m")
        assert (reply.status, len(reply.json()["data"])) == (200, 64)
        ready = (await client.got(address, "/readyz")).json()
        assert ready == {"status": "ready", "learned": {"m": {"max_inputs": 10}}}
        metrics = (await client.got(address, "/metrics")).body.decode()
        assert 'gateway_upstream_learned_limit{setting="max_inputs",upstream="m"} 10.0' in metrics


async def test_an_input_that_one_member_of_a_group_refuses_is_had_from_the_next_and_the_first_goes_on(tmp_path):
    def answer(request):
        is_bad = request.method == "POST" and "bad" in request.body["input"]
        return Said(500, b"zorp") if is_bad else standin.openai(request)

    async with Standin(answer).serving() as one, Standin(standin.openai).serving() as two:
        members = [{"name": name, "backend": "openai", "url": server.url} for name, server in (("one", one), ("two", two))]
        async with listening(tmp_path, g=("group", {"members": members})) as address:
            for texts, member in ((["a", "bad"], "two"), (["a"], "one")):
                reply = await client.posted(address, texts, model="g")
                assert (reply.status, reply.headers["x-gateway-member"]) == (200, member)
