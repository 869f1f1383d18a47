"""The cluster is not there yet, or not any more: the gateway is unready and says why, and finds it again by itself."""

import pytest

from gateway.testing.programs import free_port
from gateway.testing.ray_cluster import HOST, TEXTS, RayTestCluster, ran, until
from gateway.tests.cluster.conftest import refuse_or_skip

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(190)]


async def test_a_gateway_started_before_its_cluster_finds_it_and_finds_it_again_when_it_was_gone(config_of, served):
    refuse_or_skip()
    port = free_port(HOST)
    config = config_of(f"{HOST}:{port}")
    async with served(config) as client:
        assert await client.asked(TEXTS) == 503
        assert not await client.is_ready()
        await until(lambda: "cannot be reached" in client.log.read_text())
        for _ in range(2):
            ray_cluster = RayTestCluster(port)
            try:
                ray_cluster.add_node(num_cpus=1)
                await ran("cluster", "deploy", "--config", str(config))
                await until(client.is_ready, what="it finds the cluster")
                assert await client.asked(TEXTS) == 200
            finally:
                ray_cluster.stop()

            async def is_unready() -> bool:
                return not await client.is_ready()

            await until(is_unready, seconds=20, what="the cluster is missed")
            assert await client.asked(TEXTS) == 503
            assert await client.is_alive(), "nobody has to restart the gateway"
        assert client.num_wrong == 0
        assert client.process.poll() is None
