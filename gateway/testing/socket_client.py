"""Clients on real sockets. There may be hundreds, and each may disconnect at any time."""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

BOUND_SECONDS = 30  # after this something hangs
ERROR_KEYS = ["message", "type", "param", "code"]


@dataclass(frozen=True, slots=True)
class SocketReply:
    """A reply. `status` 0 is a connection that was closed without an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        return json.loads(self.body)

    @property
    def rows(self):
        return np.array([item["embedding"] for item in self.json()["data"]])


def reply_of(received):
    head, _, body = received.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.1 (\d{3})", head)
    lines = (line.partition(": ") for line in head.decode("latin-1").splitlines()[1:])
    return SocketReply(int(status[1]) if status else 0, {name.lower(): value for name, _, value in lines}, body)


def request_of(texts, **fields):
    """The bytes of a POST to /v1/embeddings."""
    content = json.dumps({"model": "m", "input": texts, **fields}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


@asynccontextmanager
async def connected(address):
    """A connection that is aborted at the end of the block, even with a request in flight."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def exchanged(address, content):
    """Sends `content`; returns the reply. Raises TimeoutError if the gateway neither answers nor closes."""
    received = b""
    async with asyncio.timeout(BOUND_SECONDS), connected(address) as (reader, writer):
        try:
            writer.write(content)
            await writer.drain()
            received = await reader.read()
        except ConnectionResetError:
            pass
    return reply_of(received)


async def posted(address, texts, **fields):
    return await exchanged(address, request_of(texts, **fields))


def sent(address, *requests, **fields):
    """Sends all requests at once: a task for each."""
    return [asyncio.create_task(posted(address, texts, **fields)) for texts in requests]


async def got(address, path):
    return await exchanged(address, f"GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n".encode())


async def until(is_true, address):
    """Waits until `is_true()`; between two checks the gateway answers a probe. Raises TimeoutError after BOUND_SECONDS."""
    async with asyncio.timeout(BOUND_SECONDS):
        while not is_true():
            await got(address, "/livez")


def assert_refused(reply, code="server_overloaded"):
    """Asserts a 503 as in the contract, with a Retry-After."""
    assert reply.status == 503, reply
    assert list(reply.json()["error"]) == ERROR_KEYS
    assert (reply.json()["error"]["type"], reply.json()["error"]["code"]) == ("server_error", code)
    assert 1 <= int(reply.headers["retry-after"]) <= 59
    assert reply.headers["x-request-id"]
