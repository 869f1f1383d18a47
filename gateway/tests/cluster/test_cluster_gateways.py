"""The whole of it: two gateways before one cluster, with the keys of one PostgreSQL and the limits of one Redis."""

import json
from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest

from gateway.testing.ray_cluster import MODEL, TEXTS, replica_processes, until
from gateway.testing.redis_server import RedisServer
from gateway.tests.processes.conftest import Process, running

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

LIMIT, TRIES = 40, 60  # requests


class Served(Process):
    """The gateway as it is installed, and no fake beside its model on the cluster."""

    program = ("-m", "gateway", "serve")


@pytest.fixture
def redis(tmp_path):
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def gateways(ray_cluster, config_of, deployed, small_model, postgres, redis, tmp_path):
    nodes = [ray_cluster.add_node(), ray_cluster.add_node()]
    replicas = {"min": 2, "max": 2}
    await deployed(config_of(ray_cluster.address, replicas="{ min = 2, max = 2 }"))
    row = {"name": MODEL, "backend": "ray", "source": str(small_model), "address": ray_cluster.address, "replicas": replicas}
    settings = {
        "GATEWAY__MODELS": json.dumps([row]),
        "GATEWAY__CACHE__MAX_BYTES": "0",
        "GATEWAY__LOG__FORMAT": "json",
        "GATEWAY__LIMITS__REDIS_URL": json.dumps({"env": "TEST_REDIS_URL"}),
        "TEST_REDIS_URL": redis.url,
        "GATEWAY__STORE__DATABASE_URL": postgres.new_database(),
    }
    with ExitStack() as started:
        yield [started.enter_context(running(tmp_path, number, Served, **settings)) for number in range(2)]
    for node in nodes:
        ray_cluster.kill_node(node)


async def test_a_key_its_limit_and_its_vectors_are_the_same_at_both(gateways, truth):
    here, there = gateways
    made = here.made_key("--rpm", str(LIMIT))
    async with here.client(made["key"]) as one, there.client(made["key"]) as other:

        async def is_known(client):
            return (await client.get("/v1/models")).status_code == 200

        for client in (one, other):
            await until(lambda client=client: is_known(client), what="a new key is known")
        before = replica_processes()
        replies = [await (one, other)[number % 2].post("/v1/embeddings", json=body(number)) for number in range(TRIES)]
        statuses = Counter(reply.status_code for reply in replies)
        assert set(statuses) == {200, 429}
        # A burst of a sixth of a minute's, then as many as came back meanwhile: of one count, not of one for each gateway.
        assert LIMIT // 6 <= statuses[200] < 2 * (LIMIT // 6)
        assert {reply.status_code for reply in replies[:2]} == {200}, "both serve it"
        for number, reply in enumerate(replies):
            if reply.status_code == 200:
                rows = [each["embedding"] for each in reply.json()["data"]]
                np.testing.assert_allclose(rows, [truth[text] for text in body(number)["input"]], atol=1e-4)
        assert replica_processes().keys() == before.keys()
        here.run("keys", "revoke", made["id"])

        async def is_revoked(client):
            return (await client.get("/v1/models")).status_code == 401

        for client in (one, other):
            await until(lambda client=client: is_revoked(client), seconds=5, what="a revoked key is refused by both")
    [usage] = await usages(here, made["id"], statuses[200])
    assert usage["requests"] == statuses[200]


def body(number):
    return {"model": MODEL, "input": TEXTS[number % 10 : number % 10 + 3]}


async def usages(process, public_id, num_requests):
    def written():
        rows = json.loads(process.run("keys", "usage", public_id, "--by", "month", "--json"))
        return rows if rows and rows[0]["requests"] == num_requests else None

    return await until(written, what="both gateways' usage is written")
