"""A gateway of fake embedders whose configuration is a real file, read again as a real gateway reads it."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest
from msgspec import Struct

from gateway.app import Gateway
from gateway.config import ConfigSource
from gateway.testing.fakes import FakeEmbedder

BOUND_SECONDS = 20


class VersionedSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Of another `version` the vectors are others."""

    version: int = 1
    dimensions_there_are: int = 8


class HeldEmbedder(FakeEmbedder):
    """Its loading can be held, and fail."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.start_gate: asyncio.Event | None = None
        self.is_starting = asyncio.Event()
        self.num_starts = 0

    async def start(self):
        self.num_starts += 1
        self.is_starting.set()
        if self.start_gate is not None:
            await self.start_gate.wait()
        await super().start()


class VersionedBackend:
    """Makes a new embedder for each row it is asked for, and remembers them. `fails` says what cannot be loaded, and why."""

    name = "versioned"
    settings = VersionedSettings

    def __init__(self):
        self.built: dict[tuple[str, int], HeldEmbedder] = {}
        self.num_built = 0
        self.has_a_defect = False
        self.fails: dict[str, str] = {}
        self.held: dict[str, asyncio.Event] = {}

    def build(self, settings, context):
        if self.has_a_defect:
            raise ValueError("nobody thought of this")
        self.num_built += 1
        fingerprint = f"{settings.version:08d}{'f' * 16}.fake-float32"
        embedder = HeldEmbedder(
            dimensions=settings.dimensions_there_are, fingerprint=fingerprint, fails_with=self.fails.get(context.name)
        )
        embedder.start_gate = self.held.get(context.name)
        self.built[context.name, settings.version] = embedder
        return embedder


class Running:
    """A gateway, its file, and clients that speak to whatever generation is in effect."""

    def __init__(self, path, *, data_dir):
        self.path = path
        self.data_dir = data_dir
        self.backend = VersionedBackend()

    def write(self, text):
        """As a whole, by a rename, as a careful program does."""
        beside = self.path.with_suffix(".new")
        beside.write_text(self.settled(text))
        beside.replace(self.path)

    def settled(self, text):
        text = text if "[store]" in text else f"{text}\n[store]\ndata_dir = '{self.data_dir}'\n"
        return text if "auth" in text else f"auth = 'none'\n{text}"

    def build(self):
        self.source = ConfigSource(self.path)
        self.gateway = Gateway(self.source.read(), backends=[self.backend], source=self.source)

    async def reload(self):
        """Reads the file now."""
        await self.gateway.watcher.reload()

    def results(self):
        counter = self.gateway.metrics.process.config_reloads
        return {result: counter.labels(result)._value.get() for result in ("loaded", "unchanged", "refused")}

    async def post(self, text="hello", *, model="m", **fields):
        return await self.client.post("/v1/embeddings", json={"model": model, "input": text, **fields})

    async def retired(self):
        """Returns once the former generation is closed."""
        async with asyncio.timeout(BOUND_SECONDS):
            await self.gateway.swap.retirement.wait_ended()
            assert not self.gateway.swap.has_leaked


ROW = '[[models]]\nname = "m"\nbackend = "versioned"\n'


@pytest.fixture
def started(tmp_path):
    """Starts a gateway from the text of its file, loaded; a second one of a test is a mistake."""

    @asynccontextmanager
    async def start(text=ROW, *, is_loaded=True):
        running = Running(tmp_path / "gateway.toml", data_dir=tmp_path / "data")
        running.write(text)
        running.build()
        await running.gateway.start()
        transport = httpx.ASGITransport(app=running.gateway)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as running.client:
            try:
                if is_loaded:
                    await running.gateway.load()
                yield running
            finally:
                await running.gateway.close()

    return start


async def until(is_true):
    async with asyncio.timeout(BOUND_SECONDS):
        while not is_true():
            await asyncio.sleep(0.005)
