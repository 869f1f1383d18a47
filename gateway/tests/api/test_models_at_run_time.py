"""What callers and probes see of models that load late, fail, have other names, or give fewer dimensions."""

import asyncio

import numpy as np
import pytest

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, ModelRow, ServerSettings, StoreSettings
from gateway.errors import ConfigurationError, OperatorError
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.gateway_thread import served
from gateway.tests.api.conftest import client_of


@pytest.fixture
def built(tmp_path):
    """A gateway of these rows, each with an embedder of its own; `fails` says what cannot be loaded, and why."""

    def build(*rows, fails=None, server=None):
        embedders = {row.name: FakeEmbedder(fails_with=(fails or {}).get(row.name)) for row in rows}
        sections = {"auth": AuthSettings(mode="none"), "store": StoreSettings(data_dir=str(tmp_path / "data"))}
        config = Config(**sections, server=server or ServerSettings(port=0), models=rows)
        return Gateway(config, backends=[FakeBackend(**embedders)])

    return build


def row(name="m", **settings):
    return ModelRow(name=name, backend="fake", **settings)


async def asked(client, model="m", **fields):
    return await client.post("/v1/embeddings", json={"model": model, "input": "hello", **fields})


async def test_one_model_that_cannot_be_loaded_leaves_the_others_serving_and_readyz_says_which_and_why(built):
    gateway = built(row("bad"), row("good"), fails={"bad": "the folder /srv/secret/model does not exist"})
    await gateway.start()
    await gateway.load()
    async with client_of(gateway) as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "degraded", "failed": {"bad": "cannot_be_loaded"}})
        assert "/srv" not in ready.text
        assert (await client.get("/livez")).status_code == 200  # a restart would not help, and end the good one
        assert (await asked(client, "good")).status_code == 200
        failed = await asked(client, "bad")
        assert failed.status_code == 503
        assert failed.json()["error"]["message"] == "This model has failed. It could not be loaded."
        assert 1 <= int(failed.headers["retry-after"]) <= 59
        states = {model["id"]: model["state"] for model in (await client.get("/v1/models")).json()["data"]}
        assert states == {"bad": "failed", "good": "ready"}
    await gateway.close()


async def test_while_a_model_loads_it_is_not_ready_and_says_for_which_it_waits(built):
    gateway = built(row("bad"), row("slow"), fails={"bad": "gone"})
    await gateway.loader.load(gateway.catalog.by_name["bad"])
    async with client_of(gateway) as client:
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json() == {"status": "loading", "waiting_for": ["slow"], "failed": {"bad": "cannot_be_loaded"}}
    await gateway.close()


async def test_where_nothing_can_be_loaded_it_is_not_ready(built):
    gateway = built(row("a"), row("b"), fails={"a": "gone", "b": "gone"})
    with pytest.raises(OperatorError, match="gone"):
        await gateway.load()
    async with client_of(gateway) as client:
        assert (await client.get("/readyz")).json()["status"] == "failed"
    await gateway.close()


def test_several_of_which_one_fails_are_served_and_none_ends_the_server(built):
    gateway = built(row("bad"), row("good"), fails={"bad": "gone"})
    with served(gateway):
        assert gateway.catalog.by_name["good"].state == "ready"
    with pytest.raises(OperatorError, match="gone"):
        asyncio.run(built(row("a"), row("b"), fails={"a": "gone", "b": "gone too"}).serve())


def test_what_the_configuration_itself_has_wrong_ends_the_server_whoever_else_could_serve(built):
    with pytest.raises(ConfigurationError, match=r"models\[wide\]\.max_dimensions: 9 cannot be: .* 8 dimensions"):
        asyncio.run(built(row("good"), row("wide", max_dimensions=9)).serve())


async def test_a_model_for_its_first_use_is_ready_before_it_is_loaded_and_its_first_caller_waits(built):
    gateway = built(row(load="first_use"))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        [model] = (await client.get("/v1/models")).json()["data"]
        assert (model["state"], "dimensions" in model) == ("unloaded", False)
        assert (await asked(client)).status_code == 200
        [model] = (await client.get("/v1/models")).json()["data"]
        assert (model["state"], model["dimensions"]) == ("ready", 8)
        assert "gateway_model_info{" in (await client.get("/metrics")).text
    await gateway.close()


async def test_a_models_dimensions_are_what_its_row_allows(built):
    gateway = built(row("whole"), row("short", max_dimensions=3))
    await gateway.load()
    async with client_of(gateway) as client:
        whole = (await asked(client, "whole")).json()["data"][0]["embedding"]
        short = (await asked(client, "short")).json()["data"][0]["embedding"]
        assert (len(whole), len(short)) == (8, 3)
        np.testing.assert_allclose(short, np.array(whole[:3]) / np.linalg.norm(whole[:3]), atol=1e-6)
        assert len((await asked(client, "short", dimensions=2)).json()["data"][0]["embedding"]) == 2
        refused = (await asked(client, "short", dimensions=4)).json()["error"]
        assert (refused["param"], refused["code"]) == ("dimensions", "invalid_value")
        assert "Must be less than or equal to 3" in refused["message"]
        sizes = {model["id"]: model["dimensions"] for model in (await client.get("/v1/models")).json()["data"]}
        assert sizes == {"whole": 8, "short": 3}
    await gateway.close()


async def test_any_model_may_have_openais_name_and_be_what_a_request_without_one_gets(built):
    rows = (row("a"), row("local", aliases=("text-embedding-3-small", "text-embedding-ada-002")))
    gateway = built(*rows, server=ServerSettings(default_model="text-embedding-3-small"))
    await gateway.load()
    async with client_of(gateway) as client:
        for body in ({"input": "a"}, {"input": "a", "model": None}, {"input": [[15339, 1917]], "model": "text-embedding-ada-002"}):
            assert (await client.post("/v1/embeddings", json=body)).status_code == 200
        assert (await asked(client, "text-embedding-3-small")).json()["model"] == "text-embedding-3-small"
        listed = {model["id"]: model.get("alias_of") for model in (await client.get("/v1/models")).json()["data"]}
        assert listed == {"a": None, "local": None, "text-embedding-3-small": "local", "text-embedding-ada-002": "local"}
    await gateway.close()


@pytest.mark.parametrize("name", ["gpt-4o", "o3-mini", "text-davinci-003", "text-similarity-ada-001", "davinci"])
def test_a_name_or_alias_that_tiktoken_maps_to_another_encoding_is_refused(built, name):
    for wrong in (row(name), row("m", aliases=(name,))):
        with pytest.raises(ConfigurationError, match=f"clients would send '{name}' token ids of"):
            built(wrong)


def test_two_models_of_one_name_are_refused(built):
    with pytest.raises(ConfigurationError, match="the name 'm' is used twice"):
        built(row("m"), row("other", aliases=("m",)))


async def test_an_alias_of_a_star_takes_names_that_no_model_has_and_is_listed_nowhere(built):
    gateway = built(row("a"), row("local", aliases=("*",)))
    await gateway.load()
    async with client_of(gateway) as client:
        reply = await asked(client, "gpt-4o")
        assert (reply.status_code, reply.json()["model"], reply.headers["openai-model"]) == (200, "gpt-4o", "local")
        assert (await asked(client, "a")).headers["openai-model"] == "a"
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["a", "local"]
        for name in ("gpt-4o", "*"):
            assert (await client.get(f"/v1/models/{name}")).status_code == 404
        ids = await client.post("/v1/embeddings", json={"model": "gpt-4o", "input": [15339, 1917]})
        assert "clients write token ids for `gpt-4o` in o200k_base" in ids.json()["error"]["message"]
        assert (await client.post("/v1/embeddings", json={"model": "foo", "input": [15339, 1917]})).status_code == 200
    await gateway.close()


async def test_a_name_that_there_is_not_is_told_with_those_there_are(built):
    gateway = built(*(row(f"m{number}") for number in range(12)))
    async with client_of(gateway) as client:
        message = (await asked(client, "gpt-4o")).json()["error"]["message"]
        assert message.startswith("The model `gpt-4o` does not exist or you do not have access to it. You can use `m0`, `m1`, ")
        assert message.endswith("`m9` and 2 more.")
    await gateway.close()


async def test_dimensions_above_the_models_say_what_the_client_should_set(built):
    gateway = built(row("m"))
    await gateway.load()
    async with client_of(gateway) as client:
        for field in ("dimensions", "output_dimension"):
            error = (await asked(client, "m", **{field: 1536})).json()["error"]
            assert error["param"] == field
            assert error["message"] == (
                f"Invalid value for '{field}': 1536. The model `m` gives 8; set your client's dimension to 8 or less, or leave"
                " it out. Must be less than or equal to 8."
            )
    await gateway.close()


async def test_a_length_to_cut_to_is_the_models_own_or_refused(built):
    gateway = built(row("m"))
    await gateway.load()
    reads = gateway.catalog.models[0].describe().max_tokens
    async with client_of(gateway) as client:
        assert (await asked(client, "m", truncate_prompt_tokens=reads)).status_code == 200
        error = (await asked(client, "m", truncate_prompt_tokens=reads - 1)).json()["error"]
        assert (error["param"], error["code"]) == ("truncate_prompt_tokens", "invalid_value")
        assert f"send {reads} or -1" in error["message"]
    await gateway.close()


async def test_azures_clients_learn_what_serves_them(built):
    gateway = built(row("a"), row("b", aliases=("bee",)), server=ServerSettings(default_model="bee"))
    await gateway.load()
    async with client_of(gateway) as client:
        for path in ("/info", "/models/info", "/v1/info"):
            told = (await client.get(path, params={"api-version": "2024-05-01-preview"})).json()
            assert told == {"model_name": "b", "model_type": "embeddings", "model_provider_name": "embeddings-gateway"}
        assert (await client.post("/models/embeddings?api-version=2024-05-01-preview", json={"input": ["a"]})).status_code == 200
    await gateway.close()
