"""A whole gateway around a fake embedder, that works on batches; and files as clients upload them."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from gateway.app import Gateway
from gateway.config import AuthSettings, BatchSettings, Config, FileSettings, ModelRow, StoreSettings
from gateway.testing.fakes import FakeBackend, FakeEmbedder, FakeReranker

KEY, OTHER_KEY = "test-key-of-more-than-24-characters", "another-key-of-more-than-24-characters"
ENDED = ("completed", "failed", "expired", "cancelled")
FAST = {"poll_seconds": 0.05, "lease_seconds": 5.0}


class NearBackend(FakeBackend):
    """Computes on this machine: slice after slice."""

    def is_local(self, settings, context):
        return True


def backend_of(embedder):
    return NearBackend(m=embedder, r=FakeReranker())


@pytest.fixture
def embedder():
    return FakeEmbedder()


@pytest.fixture
def reranker():
    return FakeReranker()


@pytest.fixture
def make(tmp_path, embedder, reranker):
    """Builds a gateway on one data folder; keyword arguments are settings of `[batches]`, or whole sections."""

    def build(*, backends=None, **given):
        (tmp_path / "keys").write_text(f"{KEY}\n{OTHER_KEY}\n")
        sections = {name: given.pop(name) for name in [*given] if name in Config.__struct_fields__}
        defaults = {
            "auth": AuthSettings(keys_file=str(tmp_path / "keys")),
            "store": StoreSettings(data_dir=str(tmp_path / "data")),
            "files": FileSettings(min_free_bytes=0),
            "batches": BatchSettings(**{**FAST, **given}),
            "models": (ModelRow(name="m", aliases=("org/m",), backend="fake"), ModelRow(name="r", backend="fake")),
        }
        return Gateway(Config(**{**defaults, **sections}), backends=backends or [NearBackend(m=embedder, r=reranker)])

    return build


@asynccontextmanager
async def working(gateway):
    """The gateway with its runner, without a socket."""
    await gateway.start()
    await gateway.load()
    gateway.batches.start()
    try:
        yield gateway
    finally:
        await gateway.batches.stop()
        await gateway.close()


@pytest.fixture
async def gateway(make):
    async with working(make()) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway):
    async with client_of(gateway) as client:
        yield client


def client_of(gateway, key=KEY):
    transport = httpx.ASGITransport(app=gateway)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway", headers={"authorization": f"Bearer {key}"})


async def owner_of(gateway, key=KEY):
    return (await gateway.access_control.authenticate(lambda: key)).public_id


async def upload(gateway, content, *, key=KEY, purpose="batch", name="input.jsonl"):
    """Stores a file as an upload would. Returns its id."""
    async with await gateway.generation.files.create(await owner_of(gateway, key)) as writer:
        await writer.write(content)
        return (await writer.commit(purpose=purpose, filename=name)).id


def line(custom_id, text="some text", *, url="/v1/embeddings", model="m", **more):
    body = {"model": model, "input": text, **more}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body}).encode() + b"\n"


async def created(client, file_id, *, endpoint="/v1/embeddings", **more):
    body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h", **more}
    reply = await client.post("/v1/batches", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def ended(client, batch, *, until=ENDED):
    """Asks for the batch until it has one of these statuses."""
    async with asyncio.timeout(20):
        while True:
            found = (await client.get(f"/v1/batches/{batch['id']}")).json()
            if found["status"] in until:
                return found
            await asyncio.sleep(0.02)


async def content(gateway, file_id, *, key=KEY):
    """The lines of a file, parsed; none if there is no file."""
    if file_id is None:
        return []
    files = gateway.generation.files
    file = await files.get(await owner_of(gateway, key), file_id)
    return [json.loads(each) async for each in files.lines(file)]
