"""Batches on real outages: a disk that takes no more bytes, databases that are locked and gone, and models on other machines."""

import asyncio
import resource
import sqlite3
from contextlib import contextmanager

import pytest

from gateway.access.database import Database
from gateway.backoff import Backoff
from gateway.build import BUILTIN_BACKENDS
from gateway.config import FileSettings, ModelRow
from gateway.embedding.failover_backend import FailoverBackend
from gateway.errors import Overloaded
from gateway.testing import upstream_server as standin
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.upstream_server import Said, Standin
from gateway.tests.access.conftest import settings_of
from gateway.tests.batches.conftest import backend_of, client_of, created, ended, upload, working
from gateway.tests.batches.test_run import NUMBER, answered_once, begun, lines  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr("gateway.batches.run.RETRIES", Backoff(first_seconds=0.01, max_seconds=0.05))


@contextmanager
def no_file_above(num_bytes):
    """The disk's own refusal (EFBIG), as a full one refuses: also of SQLite's file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def failures_of(metric, label, *, least):
    async with asyncio.timeout(20):
        while metric.labels(label)._value.get() < least:
            await asyncio.sleep(0.01)


async def test_a_batch_goes_on_once_its_disk_has_room_again(make, embedder, lines):  # noqa: F811
    async with working(make()) as gateway, client_of(gateway) as client:
        batch = await begun(gateway, embedder, lines, after=1)
        with no_file_above(300_000):  # a slice's replies have 800 KB
            embedder.gate.set()
            await failures_of(gateway.metrics.files.failures, "full", least=1)
            await failures_of(gateway.metrics.files.failures, "table", least=3)
        await answered_once(gateway, await ended(client, batch))


async def test_a_batch_goes_on_once_sqlite_is_no_longer_locked(make, embedder, lines, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(Database.__init__.__kwdefaults__, "busy_timeout_seconds", 0.1)
    async with working(make()) as gateway, client_of(gateway) as client:
        batch = await begun(gateway, embedder, lines, after=1)
        other = sqlite3.connect(tmp_path / "data/gateway.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        embedder.gate.set()
        await failures_of(gateway.metrics.files.failures, "table", least=1)
        other.execute("ROLLBACK")
        other.close()
        await answered_once(gateway, await ended(client, batch))


async def test_a_batch_outlives_a_postgresql_that_is_killed_and_started_again(make, embedder, lines, postgres, tmp_path):  # noqa: F811
    store = settings_of(postgres.new_database(), tmp_path)
    async with (
        working(make(store=store, files=FileSettings(min_free_bytes=0, folder=str(tmp_path / "files")))) as gateway,
        client_of(gateway) as client,
    ):
        batch = await begun(gateway, embedder, lines, after=1)
        postgres.kill()
        embedder.gate.set()
        try:
            await failures_of(gateway.metrics.files.failures, "table", least=1)
        finally:
            await asyncio.to_thread(postgres.start)
        await answered_once(gateway, await ended(client, batch))
        async with asyncio.timeout(20):
            while gateway.batches.runner.runs:  # its connections are closed once nobody uses them
                await asyncio.sleep(0.01)


def rows(backend, **settings):
    return (ModelRow(name="m", backend=backend, settings=settings), ModelRow(name="r", backend="fake"))


async def test_a_batch_of_a_group_goes_on_with_the_member_that_is_there(make, lines):  # noqa: F811
    here, there = FakeEmbedder(fingerprint="a" * 24 + ".x-float32"), FakeEmbedder(fingerprint="a" * 24 + ".y-float32")
    members = [{"backend": "fake", "name": "here"}, {"backend": "fake", "name": "there"}]
    backends = [FakeBackend(**{"m/here": here, "m/there": there, "r": FakeEmbedder()}), FailoverBackend()]
    async with working(make(backends=backends, models=rows("group", members=members))) as gateway, client_of(gateway) as client:
        num_slices, whole = there.num_embedded + 3, here.embed

        async def embed(prepared):
            vectors = await whole(prepared)
            here.raises = Overloaded()  # from the second slice on
            return vectors

        here.embed = embed
        await answered_once(gateway, await ended(client, await created(client, await upload(gateway, lines))))
        assert there.num_embedded >= num_slices


async def test_a_gateway_that_reaches_another_member_of_the_group_first_goes_on(make, lines):  # noqa: F811
    members = [{"backend": "fake", "name": "here"}, {"backend": "fake", "name": "there"}]

    def gateway_of(**more):
        here, there = (FakeEmbedder(fingerprint=f"{'a' * 24}.{name}-float32", **more.get(name, {})) for name in ("x", "y"))
        backends = [FakeBackend(**{"m/here": here, "m/there": there, "r": FakeEmbedder()}), FailoverBackend()]
        return make(backends=backends, models=rows("group", members=members), orphan_seconds=0), here

    first, _ = gateway_of()
    async with working(first) as gateway, client_of(gateway) as client:
        batch = await created(client, await upload(gateway, lines))
        async with asyncio.timeout(20):
            while (await client.get(f"/v1/batches/{batch['id']}")).json()["request_counts"]["total"] == 0:
                await asyncio.sleep(0.001)
        first.drain()
    second, _ = gateway_of(x={"fails_with": "gone"})
    async with working(second) as gateway, client_of(gateway) as client:
        await answered_once(gateway, await ended(client, batch))


async def test_a_model_whose_fingerprint_is_measured_may_be_measured_as_its_neighbour(make, embedder, lines):  # noqa: F811
    first = make()
    async with working(first):
        batch = await begun(first, embedder, lines, after=1)
        first.drain()
        embedder.gate.set()
    other = FakeEmbedder(fingerprint="e" * 24 + ".fake-float32")
    other.about = {"alike": (embedder.fingerprint,)}
    async with working(make(orphan_seconds=0, backends=[backend_of(other)])) as gateway, client_of(gateway) as client:
        await answered_once(gateway, await ended(client, batch))


async def test_a_batch_of_a_model_on_another_server_waits_for_that_server(make, lines):  # noqa: F811
    async with Standin(standin.openai).serving() as server:
        models = rows("openai", url=server.url)
        gateway = make(backends=[*BUILTIN_BACKENDS, FakeBackend(r=FakeEmbedder())], models=models)
        async with working(gateway), client_of(gateway) as client:
            whole, num_refused = server.answer, 0

            def refusing(request):
                nonlocal num_refused
                if num_refused < 2 and b"text 3000" in request.content:
                    num_refused += 1
                    return Said(503, {"error": {"message": "busy"}})
                return whole(request)

            server.answer = refusing
            batch = await created(client, await upload(gateway, lines))
            await answered_once(gateway, await ended(client, batch))
            assert num_refused == 2
