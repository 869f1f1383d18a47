"""One Ray cluster for the tests of this folder, a gateway process in front of it, and the vectors of the engine itself."""

import re
from importlib.util import find_spec

import pytest

from gateway.testing.programs import NotInstalled
from gateway.testing.ray_cluster import TEXTS, Client, RayTestCluster, client_of, gateway_process, ran, until, written
from gateway.tests.engine.conftest import DATA, embedded, local_of, small_model  # noqa: F401 - a fixture

HINT = "ray is not installed: pip install 'ray[serve]'"


def refuse_or_skip() -> None:
    if find_spec("ray") is None:
        raise NotInstalled(HINT)


@pytest.fixture(scope="session")
def ray_cluster():
    refuse_or_skip()
    ray_cluster = RayTestCluster()
    yield ray_cluster
    ray_cluster.stop()


@pytest.fixture
async def truth(small_model):  # noqa: F811
    """The vectors of the engine in this process."""
    local = local_of(small_model, runtime="openvino", precision="float32")
    await local.start()
    try:
        rows, _ = await embedded(local, *TEXTS)
    finally:
        await local.close()
    return dict(zip(TEXTS, rows, strict=True))


@pytest.fixture
def config_of(tmp_path, small_model):  # noqa: F811
    def make(address: str, name: str = "gateway.toml", **row):
        return written(tmp_path / name, address, source=small_model, data=DATA, **row)

    return make


@pytest.fixture
def served(tmp_path, truth):
    """Starts a gateway and gives its client, once it listens."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def start(config):
        log = tmp_path / "gateway.log"
        with gateway_process(config, log) as process:
            port = re.search(r"port = (\d+)", config.read_text())[1]
            async with client_of(f"http://127.0.0.1:{port}") as app:
                client = Client(app, truth)
                client.process, client.log = process, log
                await until(client.is_alive, what="the gateway listens")
                yield client

    return start


@pytest.fixture
async def deployed(ray_cluster):
    """Deploys a configuration, and takes it away after the test."""
    configs = []

    async def deploy(config, *options: str) -> str:
        configs.append(config)
        return await ran("cluster", "deploy", "--config", str(config), *options)

    yield deploy
    for config in configs[:1]:
        await ran("cluster", "delete", "small", "--config", str(config))
