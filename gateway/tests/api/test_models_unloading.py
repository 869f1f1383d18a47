"""Models that come and go, as clients, probes and scrapes see them."""

import asyncio
import time

import httpx
import msgspec
import pytest

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, EngineSettings, ModelRow, ServerSettings, StoreSettings
from gateway.errors import ConfigurationError, OperatorError
from gateway.testing.fakes import FakeBackend, FakeEmbedder, FakeLocalEmbedder
from gateway.testing.fronts_thread import served_by_fronts
from gateway.tests.api.conftest import client_of
from gateway.tests.api.faulty import FaultyBackend, HeldEncoder


@pytest.fixture
def built(tmp_path):
    def build(*rows, memory_budget=0, **embedders):
        made = {row.name: embedders.get(row.name) or FakeLocalEmbedder() for row in rows}
        config = Config(
            server=ServerSettings(port=0),
            auth=AuthSettings(mode="none"),
            engine=EngineSettings(memory_budget=memory_budget),
            store=StoreSettings(data_dir=str(tmp_path)),
            models=rows,
        )
        return Gateway(config, backends=[FakeBackend(**made)])

    return build


def row(name, **settings):
    return ModelRow(name=name, backend="fake", **{"load": "first_use", **settings})


async def ask(client, name, text="a"):
    return await client.post("/v1/embeddings", json={"model": name, "input": text})


def due(gateway):
    """All that is idle was so for long."""
    for model in gateway.catalog.models:
        model.load_state.used_at -= 1000
        model.load_state.loaded_at -= 1000


async def test_the_list_says_what_is_loaded_and_an_unloaded_model_is_ready_to_be_asked(built):
    gateway = built(row("a", unload_after=60), row("b"))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway) as client:

        async def shown():
            return {each["id"]: each for each in (await client.get("/v1/models")).json()["data"]}

        never = (await shown())["a"]
        assert (never["state"], never["loaded"], "bytes" in never, "idle_since" in never) == ("unloaded", False, False, False)
        first = (await ask(client, "a")).json()
        loaded = (await shown())["a"]
        assert (loaded["state"], loaded["loaded"], loaded["bytes"]) == ("ready", True, 100)
        assert 0 <= time.time() - loaded["idle_since"] < 60
        due(gateway)
        await gateway.loader.unload_idle()
        gone = (await shown())["a"]
        assert (gone["state"], gone["loaded"], "bytes" in gone) == ("unloaded", False, False)
        assert gone["fingerprint"] == loaded["fingerprint"]  # it is still what the model gives
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
        metrics = (await client.get("/metrics")).text
        assert 'gateway_model_memory_bytes{model="a"} 0.0' in metrics
        assert 'gateway_model_unloads_total{model="a",reason="idle"} 1.0' in metrics
        again = await ask(client, "a")
        assert again.json()["data"] == first["data"]
        assert again.headers["x-gateway-cache"] == "hits=1"  # the cache has outlived the model
        assert 'gateway_model_loads_total{model="a",reason="request"} 2.0' in (await client.get("/metrics")).text
    await gateway.close()


async def test_a_request_in_use_shows_no_idle_time_and_its_model_makes_no_room(built):
    busy = FakeLocalEmbedder()
    busy.gate = asyncio.Event()
    gateway = built(row("a"), row("b"), memory_budget=150, a=busy)
    await gateway.start()
    async with client_of(gateway) as client:
        running = asyncio.create_task(ask(client, "a"))
        await busy.is_waiting.wait()
        assert (await client.get("/v1/models/a")).json()["idle_since"] is None
        due(gateway)
        waiting = asyncio.create_task(ask(client, "b"))
        await asyncio.sleep(0)
        busy.gate.set()
        assert {(await running).status_code, (await waiting).status_code} == {200}
        assert busy.num_unloads == 1
        assert [model.state for model in gateway.catalog.models] == ["unloaded", "ready"]
    await gateway.close()


async def test_a_request_that_waited_in_vain_gets_503_with_retry_after(built):
    busy = FakeLocalEmbedder()
    busy.gate = asyncio.Event()
    gateway = built(row("a"), row("b"), memory_budget=150, a=busy)
    await gateway.start()
    async with client_of(gateway) as client:
        running = asyncio.create_task(ask(client, "a"))
        await busy.is_waiting.wait()
        gateway.generation.handler.settings = msgspec.structs.replace(gateway.config.server, request_timeout_seconds=0.2)
        reply = await ask(client, "b")
        assert (reply.status_code, int(reply.headers["retry-after"]) >= 1) == (503, True)
        busy.gate.set()
        assert (await running).status_code == 200
    await gateway.close()


async def test_a_reload_may_change_the_budget_and_loads_nothing_again(built):
    gateway = built(row("a"), row("big"), row("s", load="start"), memory_budget=250, big=FakeLocalEmbedder(200))
    await gateway.start()
    await gateway.load()
    async with client_of(gateway) as client:
        await ask(client, "a")
        assert (await ask(client, "big")).json()["error"]["code"] == "model_unavailable"
        larger = msgspec.structs.replace(gateway.config, engine=EngineSettings(memory_budget=500))
        await gateway.swap.renew(larger)
        assert (await ask(client, "big")).status_code == 200
        assert [model.state for model in gateway.catalog.models] == ["ready"] * 3
        smaller = msgspec.structs.replace(gateway.config, engine=EngineSettings(memory_budget=50))
        with pytest.raises(ConfigurationError, match=r"engine\.memory_budget: models that stay loaded take 100 bytes of its 50"):
            await gateway.swap.renew(smaller)
        assert gateway.loader.budget.max_bytes == 500
        due(gateway)
        await gateway.swap.renew(msgspec.structs.replace(gateway.config, engine=EngineSettings(memory_budget=350)))
        await gateway.loader.unload_idle()
        assert [model.state for model in gateway.catalog.models] == ["unloaded", "ready", "ready"]
        assert [model.built.num_starts for model in gateway.catalog.models] == [1, 1, 1]
    await gateway.close()


def test_unload_after_of_a_model_that_is_elsewhere_is_refused(built):
    with pytest.raises(ConfigurationError, match=r"models\[a\]\.unload_after: the backend 'fake' has nothing to unload"):
        built(row("a", unload_after=60), a=FakeEmbedder())


async def test_a_start_that_the_budget_has_no_room_for_ends_with_a_true_line(built):
    gateway = built(row("a", load="start"), row("b", load="start"), memory_budget=150)
    with pytest.raises(OperatorError, match=r"models\[b\]: it takes 100 bytes, and engine\.memory_budget is 150, of which .* 100$"):
        await gateway.load()
    await gateway.close()


def test_behind_two_fronts_a_model_comes_and_goes_as_in_one_process(tmp_path):
    config = Config(
        server=ServerSettings(port=0, drain_delay_seconds=0),
        auth=AuthSettings(mode="none"),
        engine=EngineSettings(warmup_seconds=0),
        store=StoreSettings(data_dir=str(tmp_path)),
        models=(ModelRow(name="m", backend="faulty", load="first_use", unload_after=0.5, settings={"source": "none"}),),
    )
    gateway = Gateway(config, backends=[FaultyBackend([HeldEncoder()])])
    with served_by_fronts(gateway) as origins:
        clients = [httpx.Client(base_url=url, timeout=30) for url in origins]
        seen = set()
        for number in range(12):
            client = clients[number % 2]
            reply = client.post("/v1/embeddings", json={"model": "m", "input": [f"{number}", "7"]})
            assert (reply.status_code, len(reply.json()["data"])) == (200, 2), reply.text
            if number % 4 == 3:
                until_unloaded(clients[0], seen)
            assert client.get("/readyz").json() == {"status": "ready"}
            assert client.post("/v1/tokenize", json={"model": "m", "input": "1 2"}).status_code == 200
        for client in clients:
            client.close()
    assert seen == {"ready", "unloaded"}


def until_unloaded(client, seen):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        model = client.get("/v1/models/m").json()
        seen.add(model["state"])
        if model["state"] == "unloaded":
            return
        time.sleep(0.05)
    raise AssertionError("it stayed loaded")
