"""What another server's protocol costs over OpenAI's: `python -m benchmarks.doors`. The bar is 20 microseconds a request.

Sends one short text to one gateway in this process, over ASGI without a socket. Its embedder computes nothing, and gives 384
numbers. The doors take turns. Prints the CPU time of a request, the median of the rounds, and what a door adds to OpenAI's with
the same text and floats.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gateway import log
from gateway.app import Gateway
from gateway.config import AuthSettings, CacheSettings, Config, ModelRow, ServerSettings, StoreSettings
from gateway.testing.fakes import FakeBackend, FakeEmbedder

DIMENSIONS, ROUNDS, REQUESTS, WARM_UP = 384, 15, 200, 200
TEXT = "a short text of nine words, as queries are"
MODEL = "m"
OPENAI = "openai"
DOORS: dict[str, tuple[str, dict[str, Any]]] = {
    OPENAI: ("/v1/embeddings", {"model": MODEL, "input": [TEXT]}),
    "tei": ("/embed", {"inputs": [TEXT]}),
    "tei, by the path": (f"/tei/{MODEL}", {"inputs": TEXT}),
    "ollama": ("/api/embed", {"model": f"{MODEL}:latest", "input": [TEXT]}),
    "ollama, one prompt": ("/api/embeddings", {"model": MODEL, "prompt": TEXT}),
    "cohere": ("/v2/embed", {"model": MODEL, "texts": [TEXT], "input_type": "search_query", "embedding_types": ["float"]}),
}


async def seconds_of(gateway: Gateway, path: str, body: bytes, num_requests: int) -> float:
    """CPU seconds of one request. Raises RuntimeError if one is refused."""
    began = time.thread_time()
    for _ in range(num_requests):
        if (status := await ask(gateway, path, body)) != 200:
            raise RuntimeError(f"{path} answered {status}")
    return (time.thread_time() - began) / num_requests


async def ask(gateway: Gateway, path: str, body: bytes) -> int:
    statuses: list[int] = []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    scope: Any = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    await gateway(scope, receive, send)
    return statuses[0]


async def measured(folder: Path) -> dict[str, float]:
    """Microseconds of one request at each door."""
    embedder = FakeEmbedder(dimensions=DIMENSIONS)
    config = Config(
        auth=AuthSettings(mode="none"),
        cache=CacheSettings(max_bytes=0),
        store=StoreSettings(data_dir=str(folder)),
        server=ServerSettings(default_model=MODEL),  # TEI's clients name none
        models=(ModelRow(name=MODEL, backend="fake"),),
    )
    gateway = Gateway(config, backends=[FakeBackend(m=embedder)])
    await gateway.start()
    await gateway.load()
    asked = {door: (path, json.dumps(body).encode()) for door, (path, body) in DOORS.items()}
    rounds: dict[str, list[float]] = {door: [] for door in DOORS}
    for path, body in asked.values():
        await seconds_of(gateway, path, body, WARM_UP)
    for _ in range(ROUNDS):
        for door, (path, body) in asked.items():
            rounds[door].append(await seconds_of(gateway, path, body, REQUESTS))
            embedder.prepared.clear()
    await gateway.close()
    return {door: 1e6 * statistics.median(seconds) for door, seconds in rounds.items()}


def main() -> None:
    log.configure(level="error", line_format="json")
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measured(Path(folder)))
    for door, microseconds in found.items():
        line = {"door": door, "microseconds": round(microseconds, 1), "added": round(microseconds - found[OPENAI], 1)}
        json.dump(line, sys.stdout)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
