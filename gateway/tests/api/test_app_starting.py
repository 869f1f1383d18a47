"""What a gateway says when it starts, and how it ends when it cannot."""

import asyncio

import pytest

from gateway.config import AuthSettings, MetricsSettings, ModelRow, ServerSettings
from gateway.errors import OperatorError
from gateway.testing.gateway_thread import served


async def started(gateway, capfd):
    await gateway.start()
    await gateway.close()
    return "".join(capfd.readouterr())


async def test_without_any_key_one_line_says_how_to_make_one(make, capfd):
    said = await started(make(auth=AuthSettings()), capfd)
    assert [line for line in said.splitlines() if "gateway keys create" in line and "no_api_keys" in line]


async def test_with_a_key_nothing_is_said_about_keys(make, capfd):
    assert "no_api_keys" not in await started(make(), capfd)


@pytest.mark.parametrize(
    ("host", "is_loud"), [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("10.0.0.7", True)]
)
async def test_no_authentication_is_loud_beyond_loopback(make, capfd, host, is_loud):
    said = await started(make(auth=AuthSettings(mode="none"), server=ServerSettings(host=host)), capfd)
    assert ("EVERYBODY" in said) is is_loud


def test_a_model_that_cannot_be_loaded_ends_the_server(make, embedder):
    embedder.fails_with = "the weights are not on this machine"
    gateway = make(server=ServerSettings(port=0))
    with pytest.raises(OperatorError, match="not on this machine"):
        asyncio.run(gateway.serve())
    assert embedder.is_closed


def test_a_model_with_other_vectors_than_the_pinned_ones_is_not_served(make):
    gateway = make(
        server=ServerSettings(port=0), models=(ModelRow(name="m", backend="fake", fingerprint="e" * 24 + ".fake-float32"),)
    )
    with pytest.raises(
        OperatorError, match=r"weights or configuration and tokenizer and pooling and prompts and long-input rule changed"
    ):
        asyncio.run(gateway.serve())


def test_a_gateway_listens_serves_and_ends_by_itself(make):
    gateway = make(server=ServerSettings(port=0))
    with served(gateway) as (host, port):
        assert host == "127.0.0.1"
        assert port > 0
    assert gateway.is_draining


def test_two_ports_of_metrics_cannot_be_one(make):
    first = make(server=ServerSettings(port=0))
    with served(first) as (_, port):
        second = make(server=ServerSettings(port=0), metrics=MetricsSettings(port=port))
        with pytest.raises(OperatorError, match=rf"metrics\.port: cannot listen on 127\.0\.0\.1:{port}"):
            asyncio.run(second.serve())
