"""Who may see the live figures."""

import time

import httpx
import msgspec
import pytest

from gateway.api.page.live import host_of
from gateway.config import AuthSettings, PageSettings
from gateway.tcp import is_loopback
from gateway.tests.api.conftest import KEY, client_of
from gateway.tests.api.keys import add

ADMIN_KEY = "that of an administrator"  # which is made when there is a gateway


@pytest.fixture
async def looking(make):
    """Makes clients of a gateway with some page settings, which ask from some address."""
    made = []

    async def client(*, live, address="192.0.2.7", host="gateway", auth=None):
        gateway = make(page=PageSettings(live=live), **({"auth": auth} if auth else {}))
        await gateway.start()
        made.append(gateway)
        transport = httpx.ASGITransport(app=gateway, client=(address, 40_000))
        client = httpx.AsyncClient(transport=transport, base_url=f"http://{host}")
        client.keys = {ADMIN_KEY: add(gateway, is_admin=True)[0]} if gateway.access_control.needs_key else {}
        return client

    yield client
    for gateway in made:
        await gateway.close()


@pytest.mark.parametrize(("key", "status", "code"), [
    (ADMIN_KEY, 200, None), (KEY, 403, "insufficient_permissions"), (None, 401, None), ("wrong" * 8, 401, "invalid_api_key"),
])  # fmt: skip
@pytest.mark.parametrize("live", ["admin", "loopback"])
async def test_from_elsewhere_only_a_key_with_the_admin_scope_may_look(looking, live, key, status, code):
    client = await looking(live=live)
    reply = await client.get("/page/live", headers={"api-key": client.keys.get(key, key)} if key else {})
    assert reply.status_code == status
    if status != 200:
        assert reply.json()["error"]["code"] == code


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
async def test_on_this_machine_everybody_may_look_where_so_configured(looking, address, host):
    assert (await (await looking(live="loopback", address=address, host=host)).get("/page/live")).status_code == 200
    assert (await (await looking(live="admin", address=address, host=host)).get("/page/live")).status_code == 401


@pytest.mark.parametrize("key", [KEY, "wrong" * 8])
async def test_on_this_machine_any_key_may_look_where_so_configured(looking, key):
    client = await looking(live="loopback", address="127.0.0.1", host="localhost:8000")
    assert (await client.get("/page/live", headers={"authorization": f"Bearer {key}"})).status_code == 200


async def test_it_says_since_when_it_has_watched(looking):
    client = await looking(live="loopback", address="127.0.0.1", host="localhost")
    before = time.time()
    since = [(await client.get("/page/live")).json()["watched_since"] for _ in range(2)]
    assert since[0] == since[1]
    assert before - 1 <= since[0] <= time.time() + 1


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip", "via"])
async def test_a_proxy_on_this_machine_asks_for_others(looking, header):
    client = await looking(live="loopback", address="127.0.0.1", host="localhost")
    assert (await client.get("/page/live", headers={header: "192.0.2.7"})).status_code == 401


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example", "localhost.attacker.example:80"])
async def test_a_page_whose_name_was_made_to_mean_this_machine_may_not_look(looking, host):
    client = await looking(live="loopback", address="127.0.0.1", host=host)
    assert (await client.get("/page/live")).status_code == 401


async def test_where_nobody_has_a_key_nobody_is_an_administrator(looking):
    client = await looking(live="admin", address="127.0.0.1", host="localhost", auth=AuthSettings(mode="none"))
    assert (await client.get("/page/live")).status_code == 403


async def test_turned_off_nobody_may_look(looking):
    client = await looking(live="off")
    assert (await client.get("/page/live", headers={"api-key": client.keys[ADMIN_KEY]})).status_code == 404


async def test_refusals_are_counted_as_those_of_every_route(looking):
    client = await looking(live="admin")
    await client.get("/page/live")
    assert 'gateway_auth_failures_total{reason="missing_api_key"} 1.0' in (await client.get("/metrics")).text


async def test_a_number_that_is_none_is_the_clients_mistake(looking):
    client = await looking(live="loopback", address="127.0.0.1", host="localhost")
    assert (await client.get("/page/live", params={"after": "x"})).status_code == 400


async def test_it_is_never_kept(looking):
    client = await looking(live="loopback", address="127.0.0.1", host="localhost")
    assert (await client.get("/page/live")).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("host", "expected"), [
    (b"localhost", "localhost"), (b"127.0.0.1:80", "127.0.0.1"), (b"[::1]:80", "::1"), (b"[::1]", "::1"), (b"", ""), (b"[", ""),
])  # fmt: skip
def test_a_host_is_told_from_its_port(host, expected):
    assert host_of([(b"host", host)]) == expected
    assert is_loopback(expected) == bool(expected)


async def test_asking_for_more_than_the_newest_gives_nothing(make):
    gateway = make(auth=AuthSettings(mode="none"), page=PageSettings(live="loopback"))
    async with client_of(gateway) as client:
        gateway.figures.take()
        gateway.figures.take()
        transport = httpx.ASGITransport(app=gateway, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as here:
            told = (await here.get("/page/live")).json()
            assert [point["number"] for point in told["points"]] == [0]
            assert (await here.get("/page/live", params={"after": 0})).json()["points"] == []
        assert client is not None
    await gateway.close()


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/embeddings", {"model": "m", "input": "a"}), ("/api/embed", {"model": "m", "input": "a"}), ("/embed", {"inputs": "a"}),
    ("/v2/embed", {"model": "m", "texts": ["a"], "input_type": "search_query"}),
])  # fmt: skip
async def test_the_time_of_a_whole_request_is_shown_for_every_door(gateway, path, body):
    async with client_of(gateway, authorization=f"Bearer {KEY}") as client:
        gateway.figures.take()
        assert (await client.post(path, json=body)).status_code == 200
        gateway.figures.take()
    [point] = [msgspec.json.decode(each) for each in gateway.figures.after(-1)]
    assert "whole" in point["stages"]


async def test_the_time_of_a_page_or_a_probe_is_not_shown(gateway):
    async with client_of(gateway) as client:
        gateway.figures.take()
        for path in ("/", "/livez", "/metrics"):
            assert (await client.get(path)).status_code == 200
        gateway.figures.take()
    [point] = [msgspec.json.decode(each) for each in gateway.figures.after(-1)]
    assert point["stages"] == {}
