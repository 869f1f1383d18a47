"""Two real gateways on one database, under load: what is done at one is seen at the other within two seconds."""

import asyncio
import itertools
import json
import time
from contextlib import AsyncExitStack

import httpx
import pytest

from gateway.tests.processes.conftest import Process, running

SEEN_SECONDS = 2.0
BOUND_SECONDS = 30
NUM_CLIENTS = 8  # on each gateway, one request after another

pytestmark = pytest.mark.timeout(180)


async def embed(client: httpx.AsyncClient, text: str = "a b") -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": "m", "input": text})


async def until_answered(client: httpx.AsyncClient, status: int) -> float:
    """How long, in seconds, until the gateway answers so."""
    started = time.monotonic()
    async with asyncio.timeout(BOUND_SECONDS):
        while (await embed(client)).status_code != status:
            await asyncio.sleep(0.02)
    return time.monotonic() - started


async def until_known(processes: list[Process], *keys: str) -> None:
    """Returns when every gateway serves every key: each learns of a new one within two seconds."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(process.client(key)) for process in processes for key in keys]
        await asyncio.gather(*(until_answered(client, 200) for client in clients))


class Load:
    """Requests with a key of their own to every gateway, for as long as the block lasts; each must succeed."""

    def __init__(self, processes: list[Process], key: str) -> None:
        self.processes, self.key = processes, key
        self.statuses: list[int] = []

    async def __aenter__(self) -> "Load":
        self.tasks = [
            asyncio.create_task(self.send(process, number)) for process in self.processes for number in range(NUM_CLIENTS)
        ]
        return self

    async def send(self, process: Process, number: int) -> None:
        async with process.client(self.key) as client:
            for turn in itertools.count():
                self.statuses.append((await embed(client, f"{process.origin} {number} {turn}")).status_code)

    async def __aexit__(self, *error: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        assert set(self.statuses) == {200}
        assert len(self.statuses) > 100


async def test_a_revocation_at_one_gateway_is_seen_by_the_other_within_two_seconds_under_load(pair):
    here, _ = pair
    admin, busy = here.made_key("--admin"), here.made_key()
    await until_known(pair, admin["key"], busy["key"])
    async with AsyncExitStack() as stack:
        boss = await stack.enter_async_context(here.client(admin["key"]))
        await stack.enter_async_context(Load(pair, busy["key"]))
        for _ in range(3):
            made = (await boss.post("/admin/keys", json={"name": "visitor"})).json()
            visitors = [await stack.enter_async_context(process.client(made["key"])) for process in pair]
            assert max(await asyncio.gather(*(until_answered(visitor, 200) for visitor in visitors))) < SEEN_SECONDS
            started = time.monotonic()
            assert (await boss.post(f"/admin/keys/{made['id']}/revoke")).status_code == 200
            await asyncio.gather(*(until_answered(visitor, 401) for visitor in visitors))
            assert time.monotonic() - started < SEEN_SECONDS
            assert [(await embed(visitor)).status_code for visitor in visitors] == [401, 401]


async def test_a_budget_is_spent_at_both_together(pair):
    here, there = pair
    made = here.made_key("--budget", "100/day")
    async with here.client(made["key"]) as one, there.client(made["key"]) as other:
        await asyncio.gather(until_answered(one, 200), until_answered(other, 200))
        assert (await embed(one, "word " * 100)).status_code == 200
        assert await until_answered(other, 429) < SEEN_SECONDS
        reply = await embed(one)
        assert reply.json()["error"]["code"] == "insufficient_quota"
        here.run("keys", "limit", made["id"], "--budget", "1000/day")
        await asyncio.gather(until_answered(one, 200), until_answered(other, 200))


async def test_a_killed_gateway_loses_no_more_than_the_last_seconds(pair):
    here, there = pair
    made = here.made_key()
    async with here.client(made["key"]) as client:
        await until_answered(client, 200)

    def written() -> list[dict]:
        return json.loads(there.run("keys", "usage", made["id"], "--by", "month", "--json"))

    async with asyncio.timeout(BOUND_SECONDS):
        while not written():
            await asyncio.sleep(0.02)
    here.kill()
    assert [row["requests"] for row in written()] == [1]


async def test_usage_is_what_both_served_and_a_stop_loses_nothing(pair):
    here, there = pair
    made = here.made_key()
    for process, num_requests in ((here, 7), (there, 5)):
        async with process.client(made["key"]) as client:
            await until_answered(client, 200)
            for _ in range(num_requests - 1):
                await embed(client)
    here.stop()
    there.stop()
    [row] = json.loads(here.run("keys", "usage", made["id"], "--by", "month", "--json"))
    assert (row["requests"], row["inputs"], row["tokens"]) == (12, 12, 24)


async def test_the_known_keys_go_on_while_the_server_of_the_store_is_unavailable(postgres, tmp_path):
    settings = {"GATEWAY__STORE__DATABASE_URL": postgres.new_database(), "GATEWAY__AUTH__MAX_SNAPSHOT_AGE_SECONDS": "3"}
    with running(tmp_path, 0, **settings) as process:
        made = process.made_key()
        async with process.client(made["key"]) as client:
            await until_answered(client, 200)
            postgres.kill()
            try:
                assert (await embed(client)).status_code == 200
                assert await until_answered(client, 503) > 1
                assert (await embed(client)).json()["error"]["code"] == "store_unavailable"
                assert (await client.get("/livez")).status_code == 200
            finally:
                postgres.start()
            await until_answered(client, 200)
        process.stop()
        assert postgres.password not in process.log
        assert json.loads(process.run("keys", "usage", made["id"], "--json"))[0]["requests"] >= 3


async def test_a_server_of_the_store_that_hangs_does_not_keep_a_gateway_from_serving_and_ending(postgres, tmp_path):
    with running(tmp_path, 0, GATEWAY__STORE__DATABASE_URL=postgres.new_database()) as process:
        made = process.made_key()
        async with process.client(made["key"]) as client:
            await until_answered(client, 200)
            with postgres.hung():
                for _ in range(20):
                    assert (await embed(client)).status_code == 200
                process.stop()
        assert "usage_lost" in process.events()  # and it says what it could not write
