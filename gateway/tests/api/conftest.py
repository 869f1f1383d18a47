"""A whole gateway around a fake embedder, spoken to without a socket; and what the tests of faults share."""

import httpx
import pytest

from gateway import log
from gateway.app import Gateway
from gateway.config import AuthSettings, Config, ModelRow, Secret, ServerSettings, StoreSettings
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.tests.api.faulty import HeldEncoder

KEY = "test-key-of-more-than-24-characters"


@pytest.fixture
def embedder():
    return FakeEmbedder()


@pytest.fixture
def encoder():
    return HeldEncoder()


@pytest.fixture
def quiet():
    """Thousands of requests need not each say that they were."""
    log.configure(level="error", line_format="json")


@pytest.fixture
def make(tmp_path, embedder):
    """Builds a gateway; sections given by name replace the defaults."""

    def build(*, backends=(), **sections):
        (tmp_path / "key").write_text(KEY)
        defaults = {
            "auth": AuthSettings(keys=Secret(file=str(tmp_path / "key"))),
            "store": StoreSettings(data_dir=str(tmp_path / "data")),
            "models": (ModelRow(name="m", aliases=("org/m", "text-embedding-3-small"), backend="fake"),),
        }
        return Gateway(Config(**{**defaults, **sections}), backends=backends or [FakeBackend(m=embedder)])

    return build


@pytest.fixture
async def gateway(make):
    gateway = make(server=ServerSettings(max_body_bytes=100_000, max_buffered_bytes=150_000, body_timeout_seconds=0.2))
    await gateway.start()
    await gateway.load()
    yield gateway
    await gateway.close()


def client_of(gateway, **headers):
    transport = httpx.ASGITransport(app=gateway)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers)


@pytest.fixture
async def client(gateway):
    """With the key."""
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        yield client


@pytest.fixture
async def stranger(gateway):
    """Without a key."""
    async with client_of(gateway) as client:
        yield client


class Connection:
    """One request spoken in ASGI, for what an HTTP client cannot do: leave early, send slowly, send in pieces."""

    def __init__(self, *messages, headers=()):
        self.messages = list(messages)
        self.sent = []
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/embeddings",
            "raw_path": b"/v1/embeddings",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"authorization", f"Bearer {KEY}".encode()), *headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }

    async def receive(self):
        message = self.messages.pop(0)
        return await message() if callable(message) else message

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent[1:])
