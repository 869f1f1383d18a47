"""An answer that is given before the body is read reaches the client, on connections that end after it too (RFC 9112, 9.6)."""

import asyncio
import http.client
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, LimitSettings, ModelRow, Secret, ServerSettings, StoreSettings
from gateway.metrics import Metrics
from gateway.server.lingering_close import LingeringConnections
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.gateway_thread import served
from gateway.testing.socket_client import BOUND_SECONDS, reply_of

KEY = "test-key-of-more-than-24-characters"
MAX_BODY_BYTES = 500_000
LARGE = b'{"model": "m", "input": "' + b"x" * 8_000_000 + b'"}'  # more than the buffers of two sockets
SMALL = LARGE[:900_000]  # nginx by its own defaults takes no more than a megabyte
STATUSES = {401: ("/v1/embeddings", ""), 404: ("/v1/nothing", KEY), 413: ("/v1/embeddings", KEY), 429: ("/v1/embeddings", "any"),
            503: ("/v1/embeddings", "any")}  # fmt: skip
FRAMING = {
    "a length": lambda body: b"content-length: %d\r\n\r\n" % len(body) + body,
    "chunks": lambda body: b"transfer-encoding: chunked\r\n\r\n" + b"".join(
        b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[i : i + 60_000] for i in range(0, len(body), 60_000))
    ) + b"0\r\n\r\n",
}  # fmt: skip


def gateway_of(folder, **sections):
    defaults = {"auth": AuthSettings(mode="none"), "models": (ModelRow(name="m", backend="fake"),)}
    defaults["store"] = StoreSettings(data_dir=str(folder))
    return Gateway(Config(**{**defaults, **sections}), backends=[FakeBackend(m=FakeEmbedder())])


@pytest.fixture(scope="module")
def gateways(tmp_path_factory):
    """By status, the gateway that answers with it, and its address."""
    folder = tmp_path_factory.mktemp("gateways")
    (folder / "key").write_text(KEY)
    server = ServerSettings(port=0, max_body_bytes=MAX_BODY_BYTES, body_timeout_seconds=600)
    guarded = gateway_of(folder / "a", server=server, auth=AuthSettings(keys=Secret(file=str(folder / "key"))))
    limited = gateway_of(folder / "b", server=ServerSettings(port=0), limits=LimitSettings(requests_per_minute=1, requests_burst=1))
    full = gateway_of(folder / "c", server=ServerSettings(port=0, max_concurrent_requests=1, body_timeout_seconds=600))
    with ExitStack() as stack:
        of_guarded, of_limited, of_full = [stack.enter_context(served(each)) for each in (guarded, limited, full)]
        body = b'{"model": "m", "input": "a"}'
        assert read_after_sending(of_limited, head_of(429, 1.0) + FRAMING["a length"](body)).status == 200
        holder = stack.enter_context(socket.create_connection(of_full))
        holder.sendall(head_of(503, 1.1) + b"content-length: 100\r\n\r\n{")
        wait_until(lambda: full.admission.num_requests == 1)
        found = dict.fromkeys((401, 404, 413), (guarded, of_guarded))
        yield {**found, 429: (limited, of_limited), 503: (full, of_full)}


def wait_until(is_true):
    deadline = time.monotonic() + BOUND_SECONDS
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def head_of(status, version, *lines):
    path, key = STATUSES[status]
    return "\r\n".join([f"POST {path} HTTP/{version}", "host: g", *([f"api-key: {key}"] if key else []), *lines, ""]).encode()


def read_after_sending(address, content):
    """As most clients do it: nothing is read until everything is sent. Raises ConnectionError where that was refused."""
    with socket.create_connection(address, timeout=BOUND_SECONDS) as client:
        client.sendall(content)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
    return reply_of(received)


def assert_answered(reply, status):
    assert reply.status == status
    assert list(reply.json()["error"]) == ["message", "type", "param", "code"]


@pytest.mark.parametrize(
    ("version", "framing"), [("1.0", "a length"), ("1.1", "a length"), ("1.1", "chunks")], ids=["HTTP/1.0", "a length", "chunks"]
)
@pytest.mark.parametrize("status", STATUSES)
def test_who_sends_everything_first_has_the_answer(gateways, status, version, framing):
    content = head_of(status, version, *(["connection: close"] if version == "1.1" else [])) + FRAMING[framing](LARGE)
    reply = read_after_sending(gateways[status][1], content)
    assert_answered(reply, status)
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("status", STATUSES)
def test_urllib_and_http_client_have_the_answer(gateways, status):
    (path, key), (host, port) = STATUSES[status], gateways[status][1]
    request = urllib.request.Request(f"http://{host}:{port}{path}", data=LARGE, headers={"api-key": key} if key else {})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=BOUND_SECONDS)  # noqa: S310 - our own address
    assert refused.value.code == status
    assert "error" in json.load(refused.value)
    for headers in ({}, {"connection": "close"}):
        connection = http.client.HTTPConnection(host, port, timeout=BOUND_SECONDS)
        connection.request("POST", path, LARGE, {**headers, **({"api-key": key} if key else {})})
        answer = connection.getresponse()
        assert (answer.status, list(json.loads(answer.read()))) == (status, ["error"])
        connection.close()


@contextmanager
def proxying(folder, addresses):
    """nginx with its own defaults, a server a gateway: proxy_pass and nothing else. Yields their ports."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("nginx is missing")
    found = [socket.create_server(("127.0.0.1", 0)) for _ in addresses]
    ports = [each.getsockname()[1] for each in found]
    for each in found:
        each.close()
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{host}:{theirs}; }} }}\n"
        for port, (host, theirs) in zip(ports, addresses, strict=True)
    )
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; daemon off; master_process off; events {{}} http {{ access_log off; {temporary}\n{servers}}}"
    )
    process = subprocess.Popen([program, "-p", f"{folder}/", "-c", "nginx.conf", "-e", f"{folder}/error.log"])
    try:
        wait_until(lambda: all(is_open(port) for port in ports))
        yield ports
    finally:
        process.terminate()
        process.wait(BOUND_SECONDS)


def is_open(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_the_answer_passes_through_nginx_as_it_comes(gateways, tmp_path):
    with proxying(tmp_path, [address for _, address in gateways.values()]) as ports:
        for status, port in zip(gateways, ports, strict=True):
            for _ in range(20):
                content = head_of(status, "1.1", "connection: close") + FRAMING["a length"](SMALL)
                assert_answered(read_after_sending(("127.0.0.1", port), content), status)
    assert "error" not in (tmp_path / "error.log").read_text()


def test_what_is_no_http_and_too_large_a_head_are_answered_while_more_comes(gateways):
    for content, status in [(b"NONSENSE\r\n\r\n" + LARGE, 400), (b"GET / HTTP/1.1\r\nx: " + LARGE, 431)]:
        assert_answered(read_after_sending(gateways[401][1], content), status)


def test_a_request_behind_one_that_ends_the_connection_does_not_take_its_answer(gateways):
    head = b"POST /v1/nothing HTTP/1.1\r\nhost: g\r\n"
    content = head + b"connection: close\r\ncontent-length: 0\r\n\r\n" + head + FRAMING["a length"](LARGE)
    assert_answered(read_after_sending(gateways[401][1], content), 404)


def half_closed(address, content, *, and_then=b""):
    """The answer, up to the end of the server's half; then what becomes of `and_then`: True while it is still taken."""
    with socket.create_connection(address, timeout=BOUND_SECONDS) as client:
        client.sendall(content)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
        try:
            for _ in range(50):
                client.sendall(and_then)
                time.sleep(0.002)  # until a reset would be here
        except ConnectionError:
            return reply_of(received), False
        return reply_of(received), True


@pytest.mark.parametrize("status", STATUSES)
def test_no_body_is_awaited_from_who_waits_to_be_asked_for_it(gateways, status):
    gateway, address = gateways[status]
    for lines in (["expect: 100-continue"], ["expect: 100-Continue", "connection: close"]):
        content = head_of(status, "1.1", *lines) + b"content-length: 8000000\r\n\r\n"
        reply, is_taken = half_closed(address, content, and_then=b"x")
        assert_answered(reply, status)
        assert reply.headers["connection"] == "close"
        assert not is_taken
    assert not gateway.server.lingering.connections


def test_who_was_told_to_continue_goes_on_and_has_the_answer(gateways):
    """The body is too large, which nobody knew when it was asked for."""
    with socket.create_connection(gateways[413][1], timeout=BOUND_SECONDS) as client:
        client.sendall(head_of(413, "1.1", "connection: close", "expect: 100-continue") + b"transfer-encoding: chunked\r\n\r\n")
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(FRAMING["chunks"](LARGE).partition(b"\r\n\r\n")[2])
        assert_answered(reply_of(b"".join(iter(lambda: client.recv(65536), b""))), 413)


def test_who_does_not_wait_to_be_asked_has_the_answer_too(gateways):
    content = head_of(401, "1.1", "expect: 100-continue") + FRAMING["a length"](LARGE)
    assert_answered(read_after_sending(gateways[401][1], content), 401)


def test_a_served_request_that_was_asked_for_its_body_keeps_its_connection(gateways):
    body = b'{"model": "m", "input": "a"}'
    content = head_of(413, "1.1", "expect: 100-continue") + FRAMING["a length"](body)
    received = exchanged_twice(gateways[413][1], content)
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"100", b"200", b"100", b"200"]


def exchanged_twice(address, content):
    received = b""
    with socket.create_connection(address, timeout=BOUND_SECONDS) as client:
        for number in (1, 2):
            client.sendall(content)
            while received.count(b'"usage"') < number:
                received += client.recv(65536)
    return received


def test_http_1_0_is_not_told_to_continue(gateways):
    body = b'{"model": "m", "input": "a"}'
    content = head_of(413, "1.0", "expect: 100-continue") + FRAMING["a length"](body)
    assert read_after_sending(gateways[413][1], content).status == 200


class Answering(asyncio.Protocol):
    """A server that says "no" to whoever connects, and lingers."""

    def __init__(self, lingering):
        self.lingering = lingering

    def connection_made(self, transport):
        transport.write(b"no")
        self.lingering.add(transport)


@contextmanager
def lingering_server(**bounds):
    """In a thread of its own; yields its address and who lingers."""
    lingering = LingeringConnections(Metrics(), **bounds)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        server = runner.run(serving(lingering))
        try:
            yield server.sockets[0].getsockname(), lingering, lambda done: loop.run_until_complete(until(done))
        finally:
            lingering.close()
            server.close()


async def serving(lingering):
    return await asyncio.get_running_loop().create_server(lambda: Answering(lingering), "127.0.0.1", 0)


async def until(done):
    async with asyncio.timeout(BOUND_SECONDS):
        while not done():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("bounds", "is_sending"),
    [({"silence_seconds": 0.1}, False), ({"max_seconds": 0.2}, True), ({"max_bytes": 100_000}, True)],
    ids=["silence", "seconds", "bytes"],
)
def test_it_lingers_within_bounds(bounds, is_sending):
    with lingering_server(**bounds) as (address, lingering, run_until), socket.create_connection(address) as client:
        client.setblocking(False)
        run_until(lambda: len(lingering.connections) == 1)
        run_until(lambda: not lingering.connections or (is_sending and not client.send(b"x" * 20_000)))
        assert client.recv(10) == b"no"


def test_beyond_their_number_the_longest_lingering_is_closed():
    with lingering_server(max_connections=2) as (address, lingering, run_until), ExitStack() as stack:
        clients, kept = [], []
        for number in range(1, 4):
            clients.append(stack.enter_context(socket.create_connection(address)))
            run_until(
                lambda number=number: clients[-1].getsockname() in peers(lingering) and len(lingering.connections) == min(number, 2)
            )
            kept = peers(lingering)
        assert kept == [client.getsockname() for client in clients[1:]]
        clients[1].close()
        run_until(lambda: len(lingering.connections) == 1)


def peers(lingering):
    return [each.transport.get_extra_info("peername") for each in lingering.connections]


def test_who_comes_after_the_end_is_closed_at_once():
    """As the request does that was cancelled at the end: its connection would stay open for as long as the process lives."""
    with lingering_server() as (address, lingering, run_until), socket.create_connection(address) as client:
        lingering.close()
        client.setblocking(False)
        run_until(lambda: lingering.connections or is_reset(client))
        assert not lingering.connections


def is_reset(client):
    try:
        client.send(b"x")
    except ConnectionError:
        return True
    return False


def test_who_lingers_holds_up_no_stop(tmp_path):
    gateway = gateway_of(tmp_path, server=ServerSettings(port=0))
    with ExitStack() as clients:
        with served(gateway) as address:
            client = clients.enter_context(socket.create_connection(address))
            client.sendall(b"POST /v1/nothing HTTP/1.0\r\ncontent-length: 1000\r\n\r\nx")
            wait_until(lambda: len(gateway.server.lingering.connections) == 1)
            assert gateway.metrics.registry.get_sample_value("gateway_open_connections", {"state": "lingering"}) == 1
            assert not gateway.server.server_state.connections
            gateway.server.lingering.silence_seconds = 600
        assert not gateway.server.lingering.connections
