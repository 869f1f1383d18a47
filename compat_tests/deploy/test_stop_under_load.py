"""SIGTERM under full load, again and again: not one request that was accepted is lost. Two tries; 20 in `make proof`."""

import asyncio
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from compat_tests.conftest import ENVIRONMENT_KEY
from compat_tests.process import Gateway
from compat_tests.texts import MODEL, prose

TRIES = 20 if os.environ.get("PROOF") == "1" else 2
NUM_CLIENTS = 32
MIN_ANSWERS = 3 * NUM_CLIENTS  # before the signal comes
DRAIN_TIMEOUT_SECONDS = 30
TEXTS = [[prose(25, 8 * number + each) for each in range(8)] for number in range(200)]


@dataclass
class Load:
    """Clients that each send the next request as soon as the last is answered."""

    gateway: Gateway
    num_sent: int = 0
    ok: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    is_over: bool = False

    async def client(self, openai_client: AsyncOpenAI) -> None:
        while not self.is_over:
            self.num_sent += 1
            request_id = f"load-{self.num_sent}"
            outcome = await self.one(openai_client, request_id)
            self.outcomes[outcome] += 1
            if outcome == "ok":
                self.ok.add(request_id)
            if outcome == "refused":
                return  # nobody listens any more

    async def one(self, client: AsyncOpenAI, request_id: str) -> str:
        texts = TEXTS[self.num_sent % len(TEXTS)]
        try:
            reply = await client.embeddings.create(model=MODEL, input=texts, extra_headers={"x-request-id": request_id})
            assert len(reply.data) == len(texts)
        except openai.APIStatusError as error:
            told = (error.status_code, error.code, error.response.headers["connection"])
            return "told to come back" if told == (503, "server_overloaded", "close") else str(told)
        except openai.APIConnectionError as error:
            return "refused" if "ConnectError" in repr(error.__cause__) else "cut"
        return "ok"

    async def leave_when_not_ready(self) -> None:
        """What a balancer does: it looks now and then, and sends nothing more to who is not ready."""
        while await asyncio.to_thread(self.gateway.status_of, "/readyz") == 200:
            await asyncio.sleep(0.1)
        self.is_over = True

    async def until_the_server_ends(self, *, has_balancer: bool) -> float:
        """Seconds from SIGTERM to the end of the process."""
        async with AsyncOpenAI(base_url=self.gateway.base_url, api_key=ENVIRONMENT_KEY, max_retries=0) as client:
            clients = [asyncio.create_task(self.client(client)) for _ in range(NUM_CLIENTS)]
            async with asyncio.timeout(60):
                while self.outcomes["ok"] < MIN_ANSWERS:
                    await asyncio.sleep(0.02)
            self.gateway.terminate()
            started = time.monotonic()
            if has_balancer:
                await self.leave_when_not_ready()
            assert await asyncio.to_thread(self.gateway.wait) == 0, self.gateway.log
            seconds = time.monotonic() - started
            await asyncio.gather(*clients)
        return seconds


def answered_ok(gateway: Gateway) -> set[str]:
    """The ids of requests that the server says it answered with 200."""
    lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
    return {line["request_id"] for line in lines if line["event"] == "request" and line["status"] == 200 and "inputs" in line}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("has_balancer", [True, False], ids=["behind a balancer", "alone"])
def test_a_stop_under_full_load_loses_no_accepted_request(own_gateway, tmp_path: Path, has_balancer: bool) -> None:
    """Behind a balancer nobody is even refused. Alone, whoever was let in is answered, and the rest are told."""
    delay = "1.5" if has_balancer else "0"
    took = []
    totals = Counter[str]()
    for _ in range(TRIES):
        gateway = own_gateway(
            GATEWAY__SERVER__DRAIN_DELAY_SECONDS=delay,
            GATEWAY__SERVER__DRAIN_TIMEOUT_SECONDS=str(DRAIN_TIMEOUT_SECONDS),
            GATEWAY__CACHE__MAX_BYTES="0",
        )
        gateway.start()
        gateway.wait_until_ready()
        load = Load(gateway)
        seconds = asyncio.run(load.until_the_server_ends(has_balancer=has_balancer))
        took.append(seconds)
        totals += load.outcomes
        assert answered_ok(gateway) == load.ok
        assert seconds < float(delay) + DRAIN_TIMEOUT_SECONDS
        if has_balancer:
            assert set(load.outcomes) == {"ok"}, load.outcomes
        assert set(load.outcomes) <= {"ok", "told to come back", "refused", "cut"}
        assert sum(load.outcomes.values()) == load.num_sent
    print(f"\n{TRIES} stops, {min(took):.1f} to {max(took):.1f} s each; requests: {dict(totals)}")
