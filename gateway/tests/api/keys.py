"""Keys in the store of a gateway under test, and clients that hold them."""

from contextlib import asynccontextmanager

from gateway.access.keys.key import new_key
from gateway.access.keys.policy import policy_of
from gateway.tests.api.conftest import client_of

BY = "cli:somebody"


def add(gateway, **policy):
    """The key and its id; the gateway knows it at once, not only after its next look."""
    text, key = new_key()
    gateway.access_control.store.add(key, policy_of(policy), by=BY)
    gateway.access_control.snapshot.refresh()
    return text, key.public_id


@asynccontextmanager
async def holder(gateway, **policy):
    """A client with a new key of these terms."""
    text, public_id = add(gateway, **policy)
    async with client_of(gateway, authorization=f"Bearer {text}") as client:
        client.public_id = public_id
        client.key = text
        yield client


def error_of(reply):
    error = reply.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    return reply.status_code, error["type"], error["param"], error["code"]


async def embedded(client, model="m", text="a b"):
    return await client.post("/v1/embeddings", json={"model": model, "input": text})
