"""Each kind of background work is killed in a gateway that serves: its death is one line of the log, and `/livez` names it."""

import asyncio
import io
import json
import sys

import httpx
import pytest

from gateway import log
from gateway.access.keys.snapshot_file import Snapshot
from gateway.access.keys.snapshot_writer import SnapshotWriter
from gateway.app import Gateway
from gateway.cluster.backend import RayBackend
from gateway.cluster.embedder import RayEmbedder
from gateway.config import AuthSettings, Config, ConfigSource, LimitSettings, ModelRow, Secret, ServerSettings, StoreSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.failover_backend import FailoverBackend
from gateway.metrics import Metrics
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.ray_cluster import until
from gateway.testing.upstream_server import Standin, Weights, serving_openai
from gateway.tests.cluster.test_client_process import COMMAND
from gateway.upstream.backend import UPSTREAM_BACKENDS

KEY = "test-key-of-more-than-24-characters"
BOUND_SECONDS = 30


@pytest.fixture
def deaths(monkeypatch):
    """The lines of the log that tell of a death."""
    stream = io.StringIO()

    def read() -> list[dict]:
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] in {"task_died", "thread_died"}]

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        log.configure(level="info", line_format="json")
    return read


def config_of(tmp_path, url: str) -> Config:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "redis").write_text("redis://127.0.0.1:9")
    members = [
        {"backend": "openai", "name": name, "url": where, "model": "x"}
        for name, where in (("near", url), ("far", "http://127.0.0.1:9"))
    ]
    return Config(
        server=ServerSettings(port=0),
        auth=AuthSettings(keys=Secret(file=str(tmp_path / "key"))),
        store=StoreSettings(data_dir=str(tmp_path / "data")),
        limits=LimitSettings(redis_url=Secret(file=str(tmp_path / "redis"))),
        models=(
            ModelRow(name="m", backend="fake"),
            ModelRow(name="u", backend="openai", settings={"url": url, "model": "x"}),
            ModelRow(name="g", backend="group", settings={"members": members}),
        ),
    )


def tasks_of(gateway) -> dict:
    """Everything that runs in the background of this gateway, by the name that /livez has for it."""
    access, models = gateway.access_control, {model.name: model.built for model in gateway.catalog.models}
    near = models["g"].members[0].built
    watches = [
        access.snapshot,
        access.recorder,
        access.gauges,
        gateway.generation.limiter.store.shared,
        models["u"],
        models["g"],
        near,
    ]
    return {task.name: task for task in [*gateway.tasks, *(each.background for each in watches)]}


async def test_each_part_that_dies_is_told_once_and_seen_by_livez_and_the_gauge(tmp_path, deaths):
    source = ConfigSource(tmp_path / "gateway.toml")
    async with Standin(serving_openai(Weights("a"))).serving() as server:
        backends = [FakeBackend(m=FakeEmbedder()), *UPSTREAM_BACKENDS, FailoverBackend()]
        gateway = Gateway(config_of(tmp_path, server.url), backends, source=source)
        serving = asyncio.create_task(gateway.serve())
        async with asyncio.timeout(BOUND_SECONDS), httpx.AsyncClient() as client:
            await until(lambda: serving.done() or all(model.state == "ready" for model in gateway.catalog.models))
            assert (await client.get(f"{gateway.address}/livez")).json() == {"status": "ok"}
            parts = tasks_of(gateway)
            assert {
                "keys", "usage", "key-gauges", "limits", "load-watch", "lag-watch", "reload", "watch-u", "group-g", "watch-g/near",
            } <= parts.keys()  # fmt: skip
            for number, (name, part) in enumerate(parts.items(), start=1):
                assert part.is_running, name
                part.task.cancel()
                await part.wait_ended()
                told = await client.get(f"{gateway.address}/livez")
                assert (told.status_code, told.json()["status"]) == (503, "failed")
                assert name in told.json()["failed"]
                assert len(told.json()["failed"]) == number
                assert [(line["task"], line["reason"]) for line in deaths()][number - 1 :] == [(name, "it was cancelled")]
                assert f"gateway_background_dead {number}.0" in (await client.get(f"{gateway.address}/metrics")).text
            headers = {"authorization": f"Bearer {KEY}"}
            for model in ("m", "u", "g"):  # it serves on as far as it can
                reply = await client.post(f"{gateway.address}/v1/embeddings", json={"model": model, "input": "a"}, headers=headers)
                assert reply.status_code == 200, model
        gateway.stop()
        await serving
    assert len(deaths()) == len(parts)  # being closed is no death, and no death is told twice


async def test_an_exception_is_told_by_its_type_and_never_by_its_words(make, deaths, monkeypatch):
    gateway = make()
    monkeypatch.setattr(gateway.access_control.snapshot, "renew", failing)
    monkeypatch.setattr("gateway.access.keys.snapshot.REFRESH_SECONDS", 0.001)
    await gateway.start()
    await until(deaths)
    [line] = deaths()
    assert (line["task"], line["reason"], line["error"]) == ("keys", "ValueError", "ValueError")
    assert "snapshot.py" in "".join(line["at"])
    assert KEY not in json.dumps(line)
    assert gateway.generation.dead_parts() == ["keys"]
    await gateway.close()
    assert len(deaths()) == 1


async def failing():
    raise ValueError(KEY)


async def test_a_retirement_that_dies_is_a_leak_that_only_a_restart_mends(make, embedder, deaths, monkeypatch):
    gateway = make()
    await gateway.start()
    monkeypatch.setattr(embedder, "close", failing)
    gateway.swap.retire(gateway.builder.build(gateway.config))
    await gateway.swap.retirement.wait_ended()
    await until(deaths)
    assert gateway.generation.dead_parts() == ["retire"]
    monkeypatch.undo()
    await gateway.close()


async def test_the_port_of_the_metrics_is_watched_too(make, monkeypatch):
    gateway = make()
    await gateway.start()
    monkeypatch.setattr(gateway.metrics, "is_served", lambda: False)
    assert gateway.generation.dead_parts() == ["metrics"]
    await gateway.close()


async def test_what_writes_the_snapshot_dies_once_and_for_good(deaths):
    class BrokenFile:
        def write(self, snapshot):
            raise ValueError(KEY)

    writer = SnapshotWriter(BrokenFile(), max_age_seconds=60)
    for _ in range(2):
        writer.offer(Snapshot({}, 0.0))
        await writer.background.wait_ended()
        await asyncio.sleep(0)
    assert writer.background.death == "ValueError"
    assert [(line["task"], line["reason"]) for line in deaths()] == [("key-snapshot", "ValueError")]
    await writer.close()


async def test_a_ray_client_that_nobody_looks_after_fails_its_model_and_names_itself(tmp_path, deaths):
    config = Config()
    settings = RayBackend.settings(source="m", address="127.0.0.1:9")
    metrics = Metrics()
    context = BackendContext("m", config.limits, config.engine, metrics.of_model("m"), tmp_path, asyncio.Lock())
    embedder = RayEmbedder(settings, context)
    embedder.client.command = COMMAND
    starting = asyncio.create_task(embedder.start())
    await until(lambda: embedder.client.background.is_running)
    embedder.client.background.task.cancel()
    with pytest.raises(Exception, match="no longer looked after"):
        await asyncio.wait_for(starting, BOUND_SECONDS)
    assert (embedder.health().state, embedder.health().dead_parts) == ("failed", ("cluster-m",))
    assert [(line["task"], line["reason"]) for line in deaths()] == [("cluster-m", "it was cancelled")]
    again = asyncio.create_task(embedder.start())  # as the loader does
    await until(lambda: embedder.client.background.is_running)
    assert metrics.registry.get_sample_value("gateway_background_restarts_total", {"task": "cluster"}) == 1
    assert embedder.health().dead_parts == ()
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    await embedder.close()
    assert len(deaths()) == 1
