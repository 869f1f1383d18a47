"""What a key may use: some models, for some time, so many tokens; the rest is as if it were not there."""

import asyncio
from datetime import timedelta

import pytest

from gateway.access.keys.key import new_key
from gateway.access.usage.store import UsageStore
from gateway.app import Gateway
from gateway.config import Config, ModelRow, ServerSettings, StoreSettings
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.tests.api.conftest import client_of
from gateway.tests.api.keys import add, embedded, error_of, holder

UNKNOWN = (404, "invalid_request_error", "model", "model_not_found")


@pytest.fixture
async def two_models(tmp_path):
    """A gateway of two models, the second of which, the default one, is never ready."""
    rows = (
        ModelRow(name="open", aliases=("org/open", "text-embedding-3-small"), backend="fake"),
        ModelRow(name="secret", aliases=("org/secret",), backend="fake"),
    )
    settings = Config(store=StoreSettings(data_dir=str(tmp_path)), models=rows, server=ServerSettings(default_model="secret"))
    gateway = Gateway(settings, backends=[FakeBackend(open=FakeEmbedder(), secret=FakeEmbedder())])
    await gateway.start()
    await gateway.catalog.models[0].start()
    yield gateway
    await gateway.close()


async def test_info_names_a_model_that_the_key_may_use_or_says_that_there_is_none(two_models):
    async with holder(two_models, models=["open"]) as client:
        assert (await client.get("/info")).json()["model_name"] == "open"  # not the default one, which it may not use
    async with holder(two_models, models=["nothing"]) as client:
        reply = await client.get("/info")
        assert error_of(reply) == UNKNOWN
        assert reply.json()["error"]["message"] == "You can use no model."


@pytest.mark.parametrize("models", [["open"], ["op*"], ["org/open"], ["text-embedding-3-*"], ["nothing", "o?en"]])
async def test_a_model_is_open_under_all_its_names_if_one_of_them_is_allowed(two_models, models):
    async with holder(two_models, models=models) as client:
        for name in ("open", "org/open", "text-embedding-3-small"):
            assert (await embedded(client, name)).status_code == 200
        listed = (await client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["open", "org/open", "text-embedding-3-small"]


async def test_what_a_key_may_not_use_is_answered_to_the_letter_as_what_there_is_not(two_models):
    async with holder(two_models, models=["open"]) as client:
        for name in ("secret", "org/secret"):
            hidden, unknown = await embedded(client, name), await embedded(client, "q" * len(name))
            assert error_of(hidden) == error_of(unknown) == UNKNOWN
            assert hidden.text == unknown.text.replace("q" * len(name), name)
            assert hidden.headers.keys() == unknown.headers.keys()
            told, not_there = await client.get(f"/v1/models/{name}"), await client.get("/v1/models/" + "q" * len(name))
            assert error_of(told) == error_of(not_there) == UNKNOWN
            assert "You can use `open`, `org/open`, `text-embedding-3-small`." in hidden.text
        by_path = await client.post("/openai/deployments/secret/embeddings", json={"input": "a"})
        assert error_of(by_path) == UNKNOWN
        by_default = await client.post("/v1/embeddings", json={"input": "a"})
        assert error_of(by_default) == UNKNOWN


async def test_a_key_without_a_scope_sees_every_model_and_its_state(two_models):
    async with holder(two_models) as client:
        assert error_of(await embedded(client, "secret")) == (503, "server_error", None, "model_loading")
        assert len((await client.get("/v1/models")).json()["data"]) == 5


async def test_a_hidden_model_is_counted_as_unknown(gateway, client):
    async with holder(gateway, models=["other"]) as stranger:
        assert error_of(await embedded(stranger)) == UNKNOWN
    text = (await client.get("/metrics")).text
    assert 'gateway_requests_total{model="unknown",outcome="model_not_found"} 1.0' in text


async def test_an_expired_key_is_as_wrong_as_any(gateway):
    async with holder(gateway, expires_at="2020-01-01T00:00:00Z") as client:
        assert error_of(await embedded(client)) == (401, "invalid_request_error", None, "invalid_api_key")


async def test_a_spent_budget_is_told_before_the_body_is_read_and_not_to_be_tried_again(gateway):
    async with holder(gateway, token_budget=5) as client:
        assert [(await embedded(client)).status_code for _ in range(3)] == [200] * 3
        reply = await client.post("/v1/embeddings", content=b"this would not be understood")
        assert error_of(reply) == (429, "insufficient_quota", None, "insufficient_quota")
        assert reply.json()["error"]["message"].startswith("You exceeded your current quota: 5 tokens a month")
        assert reply.headers["x-should-retry"] == "false"
        assert "retry-after" not in reply.headers
        assert (await client.get("/v1/models")).status_code == 200


async def test_usage_tells_requests_inputs_tokens_and_those_from_the_cache(gateway, client):
    async with holder(gateway) as other:
        for texts in (["a b", "c"], ["a b", "d e f"], ["a b", "a b"]):
            assert (await embedded(other, "org/m", texts)).status_code == 200
        await embedded(other, "no-such-model")
        await embedded(client)
        await gateway.access_control.recorder.flush()
        rows = {
            row.key: row for row in UsageStore(gateway.access_control.store.database).report(by="month", since="2000", limit=10)
        }
    own = rows.pop(other.public_id)
    assert (own.model, own.requests, own.inputs, own.tokens, own.cached_tokens) == ("m", 3, 6, 12, 6)
    [(public_id, configured)] = rows.items()
    assert public_id.startswith("env-")
    assert (configured.requests, configured.tokens) == (1, 2)


async def test_both_secrets_of_a_rotated_key_have_one_usage(gateway):
    old, public_id = add(gateway, token_budget=4)
    new, key = new_key(public_id)
    gateway.access_control.store.rotate(key, grace=timedelta(hours=1), by="cli:somebody")
    gateway.access_control.snapshot.refresh()
    statuses = []
    for text in (old, new, old, new):
        async with client_of(gateway, authorization=f"Bearer {text}") as client:
            statuses.append((await embedded(client)).status_code)
    assert statuses == [200, 200, 429, 429]


async def test_a_dead_bookkeeper_is_told_by_livez(gateway, stranger):
    assert (await stranger.get("/livez")).status_code == 200
    gateway.access_control.recorder.background.task.cancel()
    await asyncio.wait([gateway.access_control.recorder.background.task], timeout=10)
    reply = await stranger.get("/livez")
    assert (reply.status_code, reply.json()["failed"]) == (503, ["usage"])
