"""Requests that must all be answered, one by one: by Python, because their number is small and no throughput is told from them."""

import http.client
import itertools
import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.program import HOST, KEY, MODEL
from benchmarks.server import Server

NUM_THREADS = 32


class Client:
    """Keeps a connection a thread."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.local = threading.local()

    def embed(self, texts: str | list[str], *, model: str = MODEL, key: str = KEY, **more: object) -> None:
        """`more` are further fields of the body. Raises RuntimeError for any reply but 200."""
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection(HOST, self.server.port, timeout=120)
        body = json.dumps({"model": model, "input": texts, "encoding_format": "base64", **more})
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self.local.connection.request("POST", "/v1/embeddings", body, headers)
        reply = self.local.connection.getresponse()
        content = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"the gateway answered {reply.status}: {content[:300]!r}")


def embed_all(server: Server, requests: list[list[str]], *, clients: int, key: str = KEY) -> None:
    """Sends each request once and waits for all the replies."""
    client = Client(server)
    with ThreadPoolExecutor(clients) as pool:
        for _ in pool.map(lambda texts: client.embed(texts, key=key), requests):
            pass


def latencies(server: Server, texts: list[str], *, rate: float, seconds: float, key: str = KEY) -> list[float]:
    """In seconds, from the moment each query was due: `rate` a second, whether or not the one before was answered."""
    client = Client(server)
    began = time.monotonic()

    def ask(due: float, text: str) -> float:
        client.embed(text, key=key)
        return time.monotonic() - due

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        asked = []
        for number, text in zip(range(math.ceil(rate * seconds)), itertools.cycle(texts)):
            due = began + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            asked.append(pool.submit(ask, due, text))
    return [query.result() for query in asked]


def scrapes(server: Server, number: int) -> list[float]:
    """How long each took, in seconds, one after another on one connection, as Prometheus asks."""
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    taken = []
    for _ in range(number):
        began = time.monotonic()
        connection.request("GET", "/metrics")
        connection.getresponse().read()
        taken.append(time.monotonic() - began)
    connection.close()
    return taken


def percentile(values: list[float], share: float) -> float:
    """Nearest rank: a value that was measured."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
