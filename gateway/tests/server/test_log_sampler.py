"""The log is no target: what strangers do fast is written a few times and then counted; what callers do is written always."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, ModelRow, ServerSettings
from gateway.metrics import Metrics
from gateway.server.log_sampler import MAX_LINES, LogSampler
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.gateway_thread import served
from gateway.testing.socket_client import exchanged
from gateway.tests.api.conftest import KEY

MANY = MAX_LINES + 70


def left_out(metrics, reason):
    return metrics.registry.get_sample_value("gateway_log_lines_left_out_total", {"reason": reason}) or 0


def of_event(lines, event, **fields):
    return [line for line in lines if line["event"] == event and fields.items() <= line.items()]


async def test_each_kind_has_its_own_lines_and_the_rest_is_told_at_the_end_of_the_window():
    sampler = LogSampler(Metrics(), window_seconds=3600)
    assert sum(sampler.has_room("a") for _ in range(MANY)) == MAX_LINES
    assert sum(sampler.has_room("b") for _ in range(MAX_LINES)) == MAX_LINES
    with capture_logs() as lines:
        sampler.end_window()
        sampler.end_window()
    assert lines == [{"event": "lines_left_out", "log_level": "info", "seconds": 3600, "a": MANY - MAX_LINES}]
    assert (left_out(sampler.metrics, "a"), left_out(sampler.metrics, "b")) == (MANY - MAX_LINES, 0)
    assert sampler.has_room("a")
    sampler.end_window()


async def test_a_window_ends_by_itself_though_nothing_more_happens():
    sampler = LogSampler(Metrics(), window_seconds=0.01)
    with capture_logs() as lines:
        for _ in range(MANY):
            sampler.has_room("a")
        async with asyncio.timeout(30):
            while not lines:
                await asyncio.sleep(0.005)
    assert lines[0]["a"] == MANY - MAX_LINES
    assert sampler.timer is None


STRANGERS = {
    "no key": ({"method": "GET", "url": "/v1/models"}, 401, "missing_api_key"),
    "a wrong key": ({"method": "POST", "url": "/v1/embeddings", "headers": {"api-key": "wrong"}}, 401, "invalid_api_key"),
    "a key in the URL": ({"method": "GET", "url": f"/v1/models?api_key={KEY}"}, 401, "api_key_in_query"),
    "a scanner": ({"method": "GET", "url": "/.env"}, 404, "unknown_url"),
    "a method": ({"method": "DELETE", "url": "/openapi.json"}, 405, "method_not_allowed"),
    "large headers": ({"method": "GET", "url": "/v1/models", "headers": {"x": "y" * 40_000}}, 431, "headers_too_large"),
    "pages": ({"method": "GET", "url": "/openapi.json"}, 200, "ok"),
}


@pytest.mark.parametrize(("asked", "status", "code"), STRANGERS.values(), ids=STRANGERS)
async def test_what_a_stranger_asks_again_and_again_is_counted_and_not_written(gateway, stranger, asked, status, code):
    with capture_logs() as lines:
        replies = [await stranger.request(**asked) for _ in range(MANY)]
        gateway.sampler.end_window()
    assert {reply.status_code for reply in replies} == {status}
    written = of_event(lines, "request")
    assert [line["request_id"] for line in written] == [reply.headers["x-request-id"] for reply in replies[:MAX_LINES]]
    assert [line[code] for line in of_event(lines, "lines_left_out")] == [MANY - MAX_LINES]
    assert left_out(gateway.metrics, code) == MANY - MAX_LINES
    samples = gateway.metrics.samples(["gateway_http_requests_total"])
    assert sum(value for name, labels, value in samples if labels["status"] == str(status)) == MANY


async def test_a_flood_of_strangers_hides_no_line_of_a_caller(gateway, stranger, client):
    with capture_logs() as lines:
        for _ in range(MANY):
            await stranger.get("/v1/models")
        replies = [await client.post("/v1/embeddings", content=b"{") for _ in range(MANY)]
    assert {reply.status_code for reply in replies} == {400}
    assert len(of_event(lines, "request", code="invalid_json")) == MANY


async def test_lines_that_were_left_out_are_told_at_the_end(make):
    gateway = make()
    await gateway.start()
    for _ in range(MANY):
        gateway.sampler.has_room("invalid_api_key")
    with capture_logs() as lines:
        await gateway.close()
    assert [line["invalid_api_key"] for line in of_event(lines, "lines_left_out")] == [MANY - MAX_LINES]


CONNECTIONS = {
    "no HTTP": (b"NONSENSE\r\n\r\n", 400, "invalid_value"),
    "CONNECT": (b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n", 400, "invalid_value"),
    "headers without end": (b"GET / HTTP/1.1\r\nhost: g\r\n" + b"x-many: 1\r\n" * 60_000, 431, "headers_too_large"),
}


@pytest.mark.parametrize(("content", "status", "code"), CONNECTIONS.values(), ids=CONNECTIONS)
async def test_connections_that_are_refused_are_told_of_in_the_same_way(content, status, code, caplog):
    config = Config(server=ServerSettings(port=0), auth=AuthSettings(mode="none"), models=(ModelRow(name="m", backend="fake"),))
    gateway = Gateway(config, backends=[FakeBackend(m=FakeEmbedder())])
    with served(gateway) as address:
        with capture_logs() as lines:
            replies = [await exchanged(address, content) for _ in range(MANY)]
            gateway.server.loop.call_soon_threadsafe(gateway.sampler.end_window)
            async with asyncio.timeout(30):
                while not of_event(lines, "lines_left_out"):
                    await asyncio.sleep(0.005)
        assert {reply.status for reply in replies} <= {status, 0}  # 0: the reply was lost with what the client was still sending
        refused = of_event(lines, "connection_refused", code=code, status=status, client="127.0.0.1")
        assert len(refused) == MAX_LINES
        assert [line[code] for line in of_event(lines, "lines_left_out")] == [MANY - MAX_LINES]
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
