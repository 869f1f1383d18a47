"""Clients that ask without pause, and judge each answer. Half try once; half try again as OpenAI's SDKs do by default."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
import numpy as np

from gateway.testing.process_program import MODEL, expected_vector

NUM_TEXTS = 400
TOLERANCE = 1e-6
HANGING_SECONDS = 20.0  # an answer that takes longer is one that hangs
MAX_RETRIES = 2  # openai-python 2.x, _constants.DEFAULT_MAX_RETRIES; the pauses are those of its _calculate_retry_timeout
WORDS = ("river", "stone", "light", "market", "engine", "winter", "letter", "garden", "music", "harbour")
CLEAN_CODES = {"engine_unavailable", "model_loading", "server_overloaded", "model_unavailable"}


@dataclass
class Tally:
    """What was answered, by kind; `wrong` has what is not promised. Latencies are in seconds."""

    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0
    num_retried: int = 0
    num_given_up: int = 0


class Traffic:
    """`tally` grows while `run` does."""

    def __init__(self, origin: str, seed: int) -> None:
        self.origin = origin
        self.random = random.Random(seed)  # noqa: S311 - what is asked is no secret
        self.texts = [f"{number} " + " ".join(self.random.choices(WORDS, k=1 + number % 60)) for number in range(NUM_TEXTS)]
        self.vectors = [expected_vector(text) for text in self.texts]
        self.tally = Tally()
        self.is_over = False

    async def run(self, num_clients: int) -> None:
        await asyncio.gather(*(self.client(retries=MAX_RETRIES * (number % 2)) for number in range(num_clients)))

    async def client(self, retries: int) -> None:
        """One client, with a pool of its own, as programs have it."""
        async with httpx.AsyncClient(base_url=self.origin, timeout=HANGING_SECONDS) as client:
            while not self.is_over:
                numbers = self.random.sample(range(NUM_TEXTS), self.random.choice((1, 1, 1, 4, 16)))
                await self.ask(client, numbers, retries)

    async def ask(self, client: httpx.AsyncClient, numbers: list[int], retries: int) -> None:
        for tried in range(retries + 1):
            pause_seconds = await self.ask_once(client, numbers, tried)
            if pause_seconds is None:
                self.tally.num_retried += tried > 0
                return
            if tried < retries:
                await asyncio.sleep(pause_seconds)
        if retries:
            self.tally.num_given_up += 1
            self.tally.wrong.append("a client that tries again as the SDKs do got no answer")

    async def ask_once(self, client: httpx.AsyncClient, numbers: list[int], tried: int) -> float | None:
        """Returns None for a right answer, else the seconds after which an SDK tries again."""
        began = time.monotonic()
        by_itself = min(0.5 * 2.0**tried, 8.0) * (1 - 0.25 * self.random.random())
        try:
            reply = await client.post("/v1/embeddings", json={"model": MODEL, "input": [self.texts[number] for number in numbers]})
        except httpx.TimeoutException:
            self.note("hangs", f"no answer within {HANGING_SECONDS:g} s", began)
            return by_itself
        except httpx.TransportError as error:
            self.note(f"connection lost ({type(error).__name__})", None, began)
            return by_itself
        if reply.status_code == httpx.codes.OK:
            self.note("200", self.fault_of(reply, numbers), began)
            return None
        self.note(f"{reply.status_code} {_code(reply)}", _impurity(reply), began)
        return float(reply.headers.get("retry-after", by_itself))

    def fault_of(self, reply: httpx.Response, numbers: list[int]) -> str | None:
        """What is wrong with the vectors, if anything is."""
        rows = [row["embedding"] for row in reply.json()["data"]]
        if len(rows) != len(numbers):
            return f"{len(rows)} vectors for {len(numbers)} texts"
        wrong = [number for row, number in zip(rows, numbers, strict=True) if np.abs(row - self.vectors[number]).max() > TOLERANCE]
        return f"{len(wrong)} of {len(numbers)} vectors are wrong" if wrong else None

    def note(self, kind: str, fault: str | None, began: float) -> None:
        self.tally.kinds[kind] += 1
        self.tally.longest_seconds = max(self.tally.longest_seconds, time.monotonic() - began)
        if fault is not None:
            self.tally.wrong.append(fault)


def _code(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "without a code"


def _impurity(reply: httpx.Response) -> str | None:
    """What is not clean about a refusal: it must be a 503 of the contract, and say when to come back."""
    if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE or _code(reply) not in CLEAN_CODES:
        return f"{reply.status_code} {_code(reply)}"
    return None if reply.headers.get("retry-after", "").isdigit() else "503 without Retry-After"
