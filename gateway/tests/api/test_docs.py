"""/docs and /redoc: pages that load nothing from elsewhere, and can be turned off."""

import pytest


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_pages_load_nothing_from_elsewhere(stranger, path):
    page = await stranger.get(path)
    assert page.status_code == 200
    assert "http" not in page.text
    for asset in [part.split('"')[0] for part in page.text.split('src="')[1:] + page.text.split('href="')[1:]]:
        reply = await stranger.get(asset)
        assert reply.status_code == 200
        assert len(reply.content) > 50
    assert (await stranger.get("/docs/assets/other.js")).json()["error"]["code"] == "unknown_url"


async def test_the_pages_can_be_turned_off(make):
    from gateway.config import ServerSettings
    from gateway.tests.api.conftest import client_of

    gateway = make(server=ServerSettings(docs=False))
    async with client_of(gateway) as client:
        assert [(await client.get(path)).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404] * 3
    await gateway.close()
