"""What is counted, watched or called once is so over two fronts: bodies and requests in memory, other servers, ids and traces."""

import asyncio
import json
import socket
import threading
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, EngineSettings, ModelRow, ServerSettings, StoreSettings, TraceSettings
from gateway.processes.totals import Totals
from gateway.testing import upstream_server
from gateway.testing.fronts_thread import served_by_fronts
from gateway.testing.gateway_thread import served
from gateway.testing.upstream_server import Said, Standin
from gateway.tests.api.collector import collecting
from gateway.tests.api.faulty import FaultyBackend, HeldEncoder
from gateway.tests.processes.conftest import until
from gateway.upstream.backend import UPSTREAM_BACKENDS

WAIT_SECONDS = 20
LOCAL = ModelRow(name="local", backend="faulty", settings={"source": "none"})
TRACES = ("4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c")


def gateway_of(folder, *rows, traces=None, **server):
    config = Config(
        server=ServerSettings(port=0, drain_delay_seconds=0, **server),
        auth=AuthSettings(mode="none"),
        engine=EngineSettings(warmup_seconds=0),
        store=StoreSettings(data_dir=str(folder)),
        traces=traces or TraceSettings(),
        models=rows,
    )
    return Gateway(config, backends=[FaultyBackend([HeldEncoder()]), *UPSTREAM_BACKENDS])


@contextmanager
def clients_of(origins):
    with ExitStack() as opened:
        yield [opened.enter_context(httpx.Client(base_url=origin, timeout=WAIT_SECONDS)) for origin in origins]


@pytest.fixture(scope="module")
def totals():
    return Totals(2)


@pytest.fixture(scope="module")
def fronts(tmp_path_factory, totals):
    """A client of each front of a gateway with room for three requests and 1,500 bytes of bodies."""
    gateway = gateway_of(
        tmp_path_factory.mktemp("fronts"), LOCAL, max_concurrent_requests=3, max_body_bytes=1000, max_buffered_bytes=1500
    )
    with served_by_fronts(gateway, totals) as origins, clients_of(origins) as clients:
        yield clients


def embed(client, text="1 2", model="local", **headers):
    return client.post("/v1/embeddings", json={"model": model, "input": text}, headers=headers)


@contextmanager
def half_sent(client, num_bytes):
    """A request of whose body the last byte is missing, for as long as the block lasts."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=WAIT_SECONDS) as connection:
        head = f"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\ncontent-length: {num_bytes}\r\n\r\n"
        connection.sendall(head.encode() + b" " * (num_bytes - 1))
        yield


def assert_full(client, why):
    reply = embed(client)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "server_overloaded")
    assert why in reply.json()["error"]["message"]


def test_requests_are_bounded_over_both_fronts(fronts, totals):
    first, second = fronts
    with half_sent(first, 10), half_sent(first, 10), half_sent(second, 10):
        until(lambda: totals.read("requests") == [2, 1], WAIT_SECONDS)
        for client in fronts:
            assert_full(client, "Too many requests are being served.")
    until(lambda: totals.read("requests") == [0, 0], WAIT_SECONDS)
    assert [embed(client).status_code for client in fronts] == [200, 200]


def test_bodies_in_memory_are_bounded_over_both_fronts(fronts, totals):
    first, second = fronts
    with half_sent(first, 741), half_sent(second, 741):
        until(lambda: totals.read("body_bytes") == [740, 740], WAIT_SECONDS)
        for client in fronts:
            assert_full(client, "Its memory for request bodies is full.")
    until(lambda: totals.read("body_bytes") == [0, 0], WAIT_SECONDS)
    assert [embed(client).status_code for client in fronts] == [200, 200]


def test_a_request_keeps_its_own_id_at_each_front_and_gets_one_that_nobody_else_has(fronts):
    given = []
    for client in fronts:
        for method, path in (("POST", "/v1/embeddings"), ("GET", "/v1/models"), ("GET", "/readyz")):
            body = {"model": "local", "input": "1"} if method == "POST" else None
            reply = client.request(method, path, json=body, headers={"x-request-id": "mine-1"})
            assert (reply.status_code, reply.headers["x-request-id"]) == (200, "mine-1")
            given.append(client.request(method, path, json=body).headers["x-request-id"])
    assert len(set(given)) == len(given) == 6


@contextmanager
def other_server():
    """A stand-in for another server, in a thread of its own."""
    server, ready = Standin(upstream_server.openai), threading.Event()
    over, loops = asyncio.Event(), []

    async def serve():
        async with server.serving():
            loops.append(asyncio.get_running_loop())
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="other-server")
    thread.start()
    assert ready.wait(WAIT_SECONDS)
    try:
        yield server
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join(WAIT_SECONDS)


def test_another_server_has_one_prober_and_one_breaker_and_a_request_of_either_front_is_one_trace(tmp_path):
    with other_server() as server, collecting() as (collector, endpoint):
        settings = {"url": server.url, "model": "theirs", "breaker_failures": 1, "breaker_seconds": 30.0}
        row = ModelRow(name="m", backend="openai", settings=settings)
        with served(gateway_of(tmp_path / "one", row)):
            num_probes = len(server.requests)
        server.requests.clear()
        gateway = gateway_of(tmp_path / "two", row, traces=TraceSettings(endpoint=endpoint))
        with served_by_fronts(gateway) as origins, clients_of(origins) as (first, second):
            assert len(server.requests) == num_probes > 0
            for client, trace in zip((first, second), TRACES, strict=True):
                reply = embed(client, f"text {trace}", "m", traceparent=f"00-{trace}-00f067aa0ba902b7-01")
                assert reply.status_code == 200
                assert server.requests[-1].headers["traceparent"].split("-")[1] == trace
            server.answer = lambda _: Said(500)
            until(lambda: embed(first, "fails", "m").json()["error"]["code"] == "upstream_unavailable", WAIT_SECONDS)
            num_asked = len(server.requests)
            refused = embed(second, "fails", "m")  # without that server being asked
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "upstream_unavailable")
            assert int(refused.headers["retry-after"]) >= 1
            assert len(server.requests) == num_asked
    for trace in TRACES:
        names = sorted(span.name for span in collector.spans if span.trace_id.hex() == trace)
        assert names.count("POST /v1/embeddings") == names.count("embeddings theirs") == 1, json.dumps(names)
