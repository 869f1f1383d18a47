"""What a stranger cannot do: bring a key in a URL, pass for somebody else's address, have a browser misread a reply."""

import json

import pytest
from structlog.testing import capture_logs

from gateway.server.client_address import TrustedProxies
from gateway.tests.api.conftest import KEY


def count(gateway, reason):
    return gateway.metrics.registry.get_sample_value("gateway_auth_failures_total", {"reason": reason}) or 0


@pytest.mark.parametrize("name", ["api_key", "key", "api-key", "API-Key", "apikey", "api%5Fkey", "access_token", "x-api-key"])
async def test_a_key_in_the_url_is_refused_and_told_where_it_belongs(gateway, stranger, name):
    with capture_logs() as lines:
        reply = await stranger.get(f"/v1/models?api-version=1&{name}={KEY}")
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["code"]) == (401, "invalid_request_error", "api_key_in_query")
    assert "Authorization: Bearer" in error["message"]
    assert KEY not in reply.text
    assert KEY not in json.dumps(lines, default=str)
    assert count(gateway, "api_key_in_query") == 1


async def test_a_key_in_the_url_is_refused_beside_one_in_its_place_too(client):
    """It works, and is in somebody's log all the same."""
    assert (await client.get(f"/v1/models?key={KEY}")).status_code == 401


@pytest.mark.parametrize("query", ["api-version=2024-10-21", "keys=1", "q=key", "api", ""])
async def test_other_parameters_are_nobody_s_business(client, query):
    assert (await client.get(f"/v1/models?{query}")).status_code == 200


async def test_failed_authentications_are_counted_by_reason(gateway, stranger):
    await stranger.get("/v1/models")
    for key in ("wrong", "sk-gw-abc-def"):
        await stranger.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert (count(gateway, "missing_api_key"), count(gateway, "invalid_api_key")) == (1, 2)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/embeddings", "/nothing", "/livez", "/metrics", "/openapi.json"])
async def test_every_reply_is_private_and_is_what_it_says(client, path):
    headers = (await client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/assets/swagger-ui.css"])
async def test_pages_are_safe_and_may_be_kept(client, path):
    headers = (await client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "cache-control" not in headers


async def test_a_log_line_tells_the_client(client):
    with capture_logs() as lines:
        await client.get("/v1/models", headers={"x-forwarded-for": "203.0.113.9"})
    assert [line["client"] for line in lines if line["event"] == "request"] == ["127.0.0.1"]


TRUSTED = ("10.0.0.0/8", "192.0.2.7", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", [b"203.0.113.9"], "198.51.100.1"),  # whoever comes directly may write what he likes
        ("10.1.2.3", [], "10.1.2.3"),
        ("10.1.2.3", [b"203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", [b"1.1.1.1, 203.0.113.9, 192.0.2.7"], "203.0.113.9"),  # the first is what the client itself wrote
        ("10.1.2.3", [b"1.1.1.1", b"203.0.113.9"], "203.0.113.9"),
        ("10.1.2.3", [b"10.9.9.9"], "10.9.9.9"),
        ("10.1.2.3", [b"203.0.113.9:4711"], "203.0.113.9"),
        ("fd00::1", [b"[2001:db8::1]:4711"], "2001:db8::1"),
        ("::ffff:10.1.2.3", [b"2001:db8::1"], "2001:db8::1"),
        ("10.1.2.3", [b"unknown"], "10.1.2.3"),
        ("10.1.2.3", [b"203.0.113.9, \xff"], "10.1.2.3"),
    ],
)
def test_an_address_is_believed_from_trusted_proxies_alone(peer, forwarded, client):
    scope = {"client": (peer, 1), "headers": [(b"x-forwarded-for", value) for value in forwarded]}
    assert TrustedProxies(TRUSTED).client_of(scope) == client


def test_nobody_is_trusted_by_default():
    assert TrustedProxies(()).client_of({"client": ("127.0.0.1", 1), "headers": [(b"x-forwarded-for", b"1.1.1.1")]}) == "127.0.0.1"
    assert TrustedProxies(TRUSTED).client_of({"client": None, "headers": []}) is None
