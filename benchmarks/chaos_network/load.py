"""Clients that ask at their own pace, whatever becomes of what they asked before, and look at every vector they get.

Each stream is a gateway and a model. A closed loop would fall silent with the gateway, and see little of an outage.
"""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass
from threading import Thread

import httpx2
import numpy as np

from benchmarks.chaos_network.namespace import Namespace
from benchmarks.chaos_network.upstream import vector_of
from benchmarks.soak.form import vectors_in, worst_cosine

MIN_COSINE = 0.9999
REQUESTS_A_SECOND = 20.0  # of each stream
MAX_TEXTS = 6
MAX_OUTSTANDING = 256  # of a stream; what would be more is counted as "not asked"
CONNECT_SECONDS = 5.0
OWN_SECONDS = 14.0  # a client's own patience, beyond the gateway's deadline
NO_ANSWER = {"no connection", "no answer", "cut"}  # what a client sees of a network that fails before the gateway


@dataclass(frozen=True)
class Stream:
    gateway: str
    model: str


@dataclass(frozen=True)
class Outcome:
    """`began` is by time.monotonic; `kind` a status with its code, or one of NO_ANSWER. `is_wrong`: it breaks a promise."""

    stream: Stream
    began: float
    seconds: float
    kind: str
    is_wrong: bool = False

    @property
    def ended(self) -> float:
        return self.began + self.seconds

    @property
    def is_good(self) -> bool:
        return self.kind == "200"


class Load:
    """`outcomes` grows while the thread runs; `num_tokens` is what replies told of, `num_asked_tokens` what all of them would have.

    `urls` may change meanwhile.
    """

    def __init__(self, urls: dict[Stream, str], key: str) -> None:
        self.urls = urls
        self.key = key
        self.outcomes: list[Outcome] = []
        self.outstanding: Counter[Stream] = Counter()
        self.began: dict[int, float] = {}  # of those without an outcome yet
        self.num_tokens = 0
        self.num_asked_tokens = 0
        self.worst_cosine = 1.0
        self.numbers = itertools.count()
        self.is_over = False
        self.thread: Thread | None = None

    def start(self, host: Namespace) -> None:
        def live() -> None:
            host.enter()
            asyncio.run(self.run())

        self.thread = Thread(target=live, name="clients")
        self.thread.start()

    def stop(self) -> None:
        self.is_over = True
        if self.thread is not None:
            self.thread.join()

    def oldest(self) -> float:
        """When the oldest request began that has no outcome yet."""
        return min(self.began.copy().values(), default=float("inf"))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as streams:
            for stream in self.urls:
                streams.create_task(self.ask_on(stream))

    async def ask_on(self, stream: Stream) -> None:
        limits = httpx2.Limits(max_connections=MAX_OUTSTANDING, max_keepalive_connections=MAX_OUTSTANDING, keepalive_expiry=4)
        timeout = httpx2.Timeout(OWN_SECONDS, connect=CONNECT_SECONDS)
        headers = {"authorization": f"Bearer {self.key}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=timeout, limits=limits) as http,
            asyncio.TaskGroup() as requests,
        ):
            while not self.is_over:
                if self.outstanding[stream] < MAX_OUTSTANDING:
                    requests.create_task(self.ask(http, stream, next(self.numbers)))
                await asyncio.sleep(1 / REQUESTS_A_SECOND)

    async def ask(self, http: httpx2.AsyncClient, stream: Stream, number: int) -> None:
        texts = [f"text {place} of request {number}, which no cache knows" for place in range(1 + number % MAX_TEXTS)]
        began = time.monotonic()
        self.num_asked_tokens += len(texts)  # the stand-in counts one for each
        self.outstanding[stream] += 1
        self.began[number] = began
        kind, is_wrong = await self.kind_of(http, stream, texts)
        self.outstanding[stream] -= 1
        del self.began[number]
        self.outcomes.append(Outcome(stream, began, time.monotonic() - began, kind, is_wrong))

    async def kind_of(self, http: httpx2.AsyncClient, stream: Stream, texts: list[str]) -> tuple[str, bool]:
        """What became of it, and whether that is wrong whatever the network does."""
        body = {"model": stream.model, "input": texts, "encoding_format": "base64"}
        try:
            async with asyncio.timeout(OWN_SECONDS):
                reply = await http.post(f"{self.urls[stream]}/v1/embeddings", json=body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            return "no connection", False
        except (TimeoutError, httpx2.TimeoutException):
            return "no answer", False
        except httpx2.RequestError:
            return "cut", False
        return self.checked(reply, texts) if reply.status_code == 200 else refusal(reply)

    def checked(self, reply: httpx2.Response, texts: list[str]) -> tuple[str, bool]:
        try:
            content = reply.json()
            cosine = worst_cosine(vectors_in(content, len(texts)), np.stack([vector_of(text) for text in texts]))
            self.num_tokens += int(content["usage"]["total_tokens"])
        except (ValueError, KeyError, TypeError):
            return "200 that is none", True
        self.worst_cosine = min(self.worst_cosine, cosine)
        return ("200", False) if cosine >= MIN_COSINE else ("200 with wrong vectors", True)


def refusal(reply: httpx2.Response) -> tuple[str, bool]:
    """Wrong unless it is in the contract's shape, and says when to come again."""
    try:
        error = reply.json()["error"]
        kind = f"{reply.status_code} {error['code'] or error['type']}"
    except (ValueError, KeyError, TypeError):
        return f"{reply.status_code} in another shape", True
    if reply.status_code not in {429, 502, 503}:
        return kind, True
    return (kind, False) if "retry-after" in reply.headers else (f"{kind} without Retry-After", True)
