"""A group as a caller and an operator see it: through the whole gateway, from its row to the reply's headers."""

import pytest

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, ModelRow, StoreSettings
from gateway.embedding.failover_backend import FailoverBackend
from gateway.errors import ConfigurationError, Overloaded
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.tests.api.conftest import client_of

MEMBERS = [{"backend": "fake", "name": "here"}, {"backend": "fake", "name": "there"}]


@pytest.fixture
def built(tmp_path):
    def build(embedders, members):
        row = ModelRow(name="m", backend="group", settings={"members": members})
        config = Config(auth=AuthSettings(mode="none"), store=StoreSettings(data_dir=str(tmp_path)), models=(row,))
        return Gateway(config, backends=[FakeBackend(**embedders), FailoverBackend()])

    return build


async def test_a_reply_of_another_member_says_so_in_its_headers_in_the_metrics_and_in_the_log(built, capfd):
    here, there = FakeEmbedder(fingerprint="a" * 24 + ".x-float32"), FakeEmbedder(fingerprint="a" * 24 + ".y-float32")
    gateway = built({"m/here": here, "m/there": there}, MEMBERS)
    await gateway.start()
    await gateway.load()
    async with client_of(gateway) as client:
        body = {"model": "m", "input": "hello"}
        own = await client.post("/v1/embeddings", json=body)
        assert own.headers["x-gateway-member"] == "here"
        assert own.headers["x-gateway-fingerprint"].endswith(".x-float32")
        here.raises = Overloaded()
        other = await client.post("/v1/embeddings", json={**body, "input": "other"})
        assert (other.status_code, other.headers["x-gateway-member"]) == (200, "there")
        assert other.headers["x-gateway-fingerprint"].endswith(".y-float32")
        text = (await client.get("/metrics")).text
        assert 'gateway_group_requests_total{member="there",model="m",outcome="ok"} 1.0' in text
        assert 'gateway_group_requests_total{member="here",model="m",outcome="server_overloaded"} 1.0' in text
        assert 'gateway_group_fallbacks_total{model="m"} 1.0' in text
        assert 'model="m/' not in text
        [listed] = (await client.get("/v1/models")).json()["data"]
        assert (listed["id"], listed["backend"]) == ("m", "group")
    said = "".join(capfd.readouterr())
    assert "group_member_failed" in said
    assert "there" in said
    await gateway.close()
    assert here.is_closed
    assert there.is_closed


def test_a_members_settings_are_checked_by_its_backend(built):
    wrong = [{**MEMBERS[0], "url": "http://a"}, MEMBERS[1]]
    with pytest.raises(ConfigurationError, match=r"unknown setting 'models\[m/here\]\.url'"):
        built({"m/here": FakeEmbedder(), "m/there": FakeEmbedder()}, wrong)
