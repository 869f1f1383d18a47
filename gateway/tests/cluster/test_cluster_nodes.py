"""A gateway in front of two Ray nodes: what its clients see while nodes, replicas and Ray clients come and go."""

import asyncio
import os
import signal

import pytest

from gateway.testing.ray_cluster import MODEL, TEXTS, Client, replica_processes, under_load, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


async def ready_with(client: Client, num_replicas: int) -> None:
    async def is_so() -> bool:
        return await client.is_ready() and await client.running() == num_replicas

    await until(is_so, what=f"{num_replicas} replicas run: {client.log.read_text()[-2000:]}")


async def test_both_nodes_answer_with_the_engines_own_vectors_and_one_that_is_lost_under_load_loses_no_request(
    ray_cluster, config_of, deployed, served
):
    nodes = [ray_cluster.add_node(), ray_cluster.add_node()]
    config = config_of(ray_cluster.address, replicas="{ min = 2, max = 2 }")
    assert "running; replicas: 2 running" in await deployed(config)
    async with served(config) as client:
        await ready_with(client, 2)
        assert await client.asked(TEXTS) == 200
        assert await client.batched(TEXTS)
        before = replica_processes()
        async with under_load(client, clients=8):
            await until(lambda: client.num_asked > 400)
        after = replica_processes()
        assert len({node for node, _ in after.values()}) == 2, "a replica on each node"
        assert all(after[pid][1] > before[pid][1] + 0.1 for pid in before), "both worked"

        num_asked = client.num_asked
        async with under_load(client, clients=8):
            ray_cluster.kill_node(nodes[1])
            await until(lambda: client.num_asked > num_asked + 600)
        assert client.statuses == {200: client.num_asked}
        assert client.num_wrong == 0
        nodes[1] = ray_cluster.add_node()
        await ready_with(client, 2)
    for node in nodes:
        ray_cluster.kill_node(node)


async def test_a_load_step_brings_replicas_and_its_end_takes_them_away(ray_cluster, config_of, deployed, served):
    node = ray_cluster.add_node(num_cpus=2)
    config = config_of(
        ray_cluster.address,
        replicas="{ min = 1, max = 2 }",
        target_busy_ratio="0.05",
        upscale_delay_seconds="0.5",
        downscale_delay_seconds="2",
    )
    await deployed(config)
    async with served(config) as client:
        await ready_with(client, 1)
        async with under_load(client, clients=16, num_texts=16):
            await until(lambda: is_running(client, 2), what="a second replica")
        await until(lambda: is_running(client, 1), what="the second replica is gone")
        assert client.statuses == {200: client.num_asked}
        assert client.num_wrong == 0
    ray_cluster.kill_node(node)


async def is_running(client: Client, num_replicas: int) -> bool:
    return await client.running() == num_replicas


@pytest.mark.parametrize("surge_percent", ["100", "0"])
async def test_an_update_replaces_every_replica_and_with_one_more_meanwhile_fails_no_request(
    ray_cluster, config_of, deployed, served, surge_percent
):
    node = ray_cluster.add_node(num_cpus=2)
    config = config_of(ray_cluster.address, surge_percent=surge_percent)
    await deployed(config)
    async with served(config) as client:
        await ready_with(client, 1)
        before = set(replica_processes())
        async with under_load(client, clients=4):
            await deployed(
                config_of(ray_cluster.address, "updated.toml", surge_percent=surge_percent, engine="max_batch_tokens = 256")
            )
            await until(lambda: replica_processes() and not before & set(replica_processes()), what="the old replica is gone")
        if surge_percent == "100":
            assert client.statuses == {200: client.num_asked}
        else:  # its one replica is unavailable until the new one has started: requests wait for five seconds, then they are 503
            assert set(client.statuses) <= {200, 503}
            await until(client.is_ready, what="the new replica serves")
            assert await client.asked(TEXTS) == 200
        assert client.num_wrong == 0
    ray_cluster.kill_node(node)


async def test_other_vectors_are_refused_by_the_replica_itself_and_the_old_ones_are_served_on(
    ray_cluster, config_of, deployed, served
):
    node = ray_cluster.add_node(num_cpus=2)
    config = config_of(ray_cluster.address, surge_percent="100")
    await deployed(config)
    async with served(config) as client:
        await ready_with(client, 1)
        changed = config_of(ray_cluster.address, "changed.toml", surge_percent="100", long_input='"end"')
        with pytest.raises(AssertionError, match="has vectors"):
            await deployed(changed)
        assert await client.asked(TEXTS) == 200
        assert client.num_wrong == 0
    ray_cluster.kill_node(node)


async def test_a_ray_client_that_dies_is_replaced_and_what_it_held_is_asked_again(ray_cluster, config_of, deployed, served):
    node = ray_cluster.add_node(num_cpus=1)
    config = config_of(ray_cluster.address)
    await deployed(config)
    async with served(config) as client:
        await ready_with(client, 1)
        for name, status in [("SIGKILL", {200, 503}), ("SIGTERM", {200, 503})]:
            async with under_load(client, clients=4):
                [ray_client] = ray_clients_of(client.process.pid)
                os.kill(ray_client, getattr(signal, name))
                await until(lambda pid=ray_client: ray_clients_of(client.process.pid) not in ([], [pid]), what="another Ray client")
                await until(client.is_ready)
            assert set(client.statuses) <= status
            assert client.num_wrong == 0
        assert await client.asked(TEXTS) == 200
        assert await client.counted("gateway_cluster_outstanding_calls") == 0
    ray_cluster.kill_node(node)


def ray_clients_of(pid: int) -> list[int]:
    """The Ray client among a gateway's children."""
    from pathlib import Path

    children = [int(each) for path in Path(f"/proc/{pid}/task").glob("*/children") for each in path.read_text().split()]
    return [each for each in children if b"gateway.cluster.ray_client" in Path(f"/proc/{each}/cmdline").read_bytes()]


async def test_a_full_queue_is_503_with_the_time_to_come_back_and_passes(ray_cluster, config_of, deployed, served):
    node = ray_cluster.add_node(num_cpus=1)
    config = config_of(ray_cluster.address, max_ongoing_requests="1", max_queued_requests="1")
    await deployed(config)
    async with served(config) as client:
        await ready_with(client, 1)
        texts = [f"{first} {second}" for first in TEXTS for second in TEXTS]
        tasks = [client.app.post("/v1/embeddings", json={"model": MODEL, "input": texts}, timeout=60) for _ in range(24)]
        replies = await asyncio.gather(*tasks)
        refused = [reply for reply in replies if reply.status_code != 200]
        assert 0 < len(refused) < len(replies)
        for reply in refused:
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_overloaded")
            assert int(reply.headers["retry-after"]) >= 1
        assert await client.asked(TEXTS) == 200
        assert client.num_wrong == 0
    ray_cluster.kill_node(node)


async def test_a_client_that_leaves_frees_its_place_on_the_cluster(ray_cluster, config_of, deployed, served):
    node = ray_cluster.add_node(num_cpus=1)
    config = config_of(ray_cluster.address)
    await deployed(config)
    async with served(config) as client:
        await ready_with(client, 1)
        texts = [f"{first} {second} {third}" for first in TEXTS for second in TEXTS for third in TEXTS[:6]]  # 1,944, all different
        body = {"model": MODEL, "input": texts}
        tasks = [asyncio.create_task(client.app.post("/v1/embeddings", json=body, timeout=60)) for _ in range(8)]
        await until(lambda: is_outstanding(client))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        async def is_free() -> bool:
            return not await is_outstanding(client)

        await until(is_free)
        assert await client.counted('gateway_cluster_calls_total{model="small",outcome="cancelled"}') > 0
        assert await client.asked(TEXTS) == 200
    ray_cluster.kill_node(node)


async def is_outstanding(client: Client) -> bool:
    return await client.counted("gateway_cluster_outstanding_calls") > 0
