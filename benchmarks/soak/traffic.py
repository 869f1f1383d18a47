"""Clients of every kind, each asking again as soon as it was answered, and every vector they get held against what is true."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from benchmarks.soak.form import FORMS, Form, Vectors, vectors_in, worst_cosine

MIN_COSINE = 0.999  # of bfloat16; another text's vector has 0.8 at most
LEAVE_SHARE, LEAVE_SECONDS = 0.03, 0.02
TIMEOUT_SECONDS = 60.0  # beyond it something hangs
PAUSE_SECONDS = 0.05  # after a refusal, as a client would wait
MAX_REMEMBERED = 200_000


@dataclass(frozen=True)
class Caller:
    """A key, and the model its requests name."""

    name: str
    key: str
    model: str
    public_id: str


@dataclass
class Tally:
    """`outcomes` by caller and kind; `latencies` are (when it ended, seconds) of good replies; `wrong` says what was wrong."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    num_tokens: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    worst_cosine: float = 1.0

    def good(self, caller: Caller, seconds: float, num_tokens: int) -> None:
        self.outcomes[caller.name, "200"] += 1
        self.num_tokens[caller.name] += num_tokens
        if len(self.latencies) < MAX_REMEMBERED:
            self.latencies.append((time.monotonic(), seconds))


class Traffic:
    """`is_unavailable` says whether the gateway is being restarted: then, and only then, a connection may be refused."""

    def __init__(
        self, url: str, callers: list[Caller], *, texts: list[str], truth: Vectors, is_unavailable: Callable[[float], bool]
    ) -> None:
        self.url = url
        self.callers = callers
        self.texts = texts
        self.truth = truth
        self.is_unavailable = is_unavailable
        self.tally = Tally()
        self.is_over = False

    async def run(self, num_clients: int, seed: int) -> None:
        """Until `is_over`."""
        limits = httpx2.Limits(max_connections=num_clients, max_keepalive_connections=num_clients)
        async with httpx2.AsyncClient(base_url=self.url, timeout=TIMEOUT_SECONDS, limits=limits) as http:
            chances = [random.Random(f"{seed}/{number}") for number in range(num_clients)]  # noqa: S311 - what is sent when
            await asyncio.gather(*(self.client(http, chance, number) for number, chance in enumerate(chances)))

    async def client(self, http: httpx2.AsyncClient, chance: random.Random, number: int) -> None:
        form, caller = FORMS[number % len(FORMS)], self.callers[number % len(self.callers)]
        while not self.is_over:
            count = chance.randint(1, form.max_texts)
            chosen = [chance.randrange(len(self.texts)) for _ in range(count)]
            if not await self.ask(http, form, caller, chosen, leaves=chance.random() < LEAVE_SHARE):
                await asyncio.sleep(PAUSE_SECONDS)

    async def ask(self, http: httpx2.AsyncClient, form: Form, caller: Caller, chosen: list[int], *, leaves: bool) -> bool:
        """Whether it went well."""
        body = {"model": caller.model, **form.of_texts([self.texts[index] for index in chosen])}
        began = time.monotonic()
        try:
            async with asyncio.timeout(LEAVE_SECONDS if leaves else None):
                reply = await http.post("/v1/embeddings", json=body, headers={"authorization": f"Bearer {caller.key}"})
        except TimeoutError:
            self.tally.outcomes[caller.name, "left"] += 1
            return True
        except httpx2.ConnectError:
            self.broken(caller, "connection refused", began)
            return False
        except httpx2.TimeoutException:
            self.bad(caller, f"no answer within {TIMEOUT_SECONDS:g} s", form)
            return False
        except httpx2.RequestError as error:
            self.broken(caller, f"connection cut ({type(error).__name__})", began)
            return False
        if reply.status_code != 200:
            self.refused(caller, reply, form)
            return False
        self.check(caller, reply, form, chosen, time.monotonic() - began)
        return True

    def check(self, caller: Caller, reply: httpx2.Response, form: Form, chosen: list[int], seconds: float) -> None:
        try:
            content = reply.json()
            cosine = worst_cosine(vectors_in(content, len(chosen)), self.truth[chosen])
            num_tokens = int(content["usage"]["total_tokens"])
        except (ValueError, KeyError, TypeError) as error:
            self.bad(caller, f"a reply that is none: {type(error).__name__}", form)
            return
        self.tally.worst_cosine = min(self.tally.worst_cosine, cosine)
        if cosine >= MIN_COSINE:
            self.tally.good(caller, seconds, num_tokens)
        else:
            self.bad(caller, "wrong vectors", form, detail=f"cosine {cosine:.4f}")

    def refused(self, caller: Caller, reply: httpx2.Response, form: Form) -> None:
        try:
            error = reply.json()["error"]
            kind = f"{reply.status_code} {error['code'] or error['type']}"
        except (ValueError, KeyError, TypeError):
            self.bad(caller, f"{reply.status_code} in another shape than the contract's", form)
            return
        if reply.status_code in {429, 502, 503}:
            self.tally.outcomes[caller.name, kind] += 1
        else:
            self.bad(caller, kind, form)

    def broken(self, caller: Caller, kind: str, began: float) -> None:
        if self.is_unavailable(began):
            self.tally.outcomes[caller.name, f"{kind}, in a restart"] += 1
        else:
            self.bad(caller, kind, None)

    def bad(self, caller: Caller, kind: str, form: Form | None, *, detail: str = "") -> None:
        self.tally.outcomes[caller.name, f"BAD: {kind}"] += 1
        if len(self.tally.wrong) < 20:
            self.tally.wrong.append(f"{caller.name}{f', as {form.client}' if form else ''}: {kind} {detail}".strip())
