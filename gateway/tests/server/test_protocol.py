"""What a connection may cost: slow headers, silence, replies that nobody reads, bytes that are no HTTP. On real sockets."""

import asyncio
import json
import re
import socket
from contextlib import asynccontextmanager

import pytest

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, LimitSettings, ModelRow, ServerSettings
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.gateway_thread import exchanged, served
from gateway.testing.socket_client import BOUND_SECONDS, connected, posted, reply_of, request_of, until

pytestmark = pytest.mark.usefixtures("quiet")

SHORT_SECONDS = 0.2
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\n"
BODY = b'{"model": "m", "input": "hello"}'
GOOD = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
GET = b"GET /livez HTTP/1.1\r\nhost: g\r\n\r\n"
NUM_LARGE, LARGE_DIMENSIONS = 400, 2048  # a reply of 8 MB: more than the buffers of two sockets


@asynccontextmanager
async def serving(*, dimensions=8, **settings):
    config = Config(
        server=ServerSettings(port=0, **settings), auth=AuthSettings(mode="none"), models=(ModelRow(name="m", backend="fake"),)
    )
    gateway = Gateway(config, backends=[FakeBackend(m=FakeEmbedder(dimensions=dimensions))])
    with served(gateway) as address:
        yield gateway, address


def num_cut(gateway, reason):
    return gateway.metrics.registry.get_sample_value("gateway_connections_cut_total", {"reason": reason}) or 0


def num_connections(gateway):
    return len(gateway.server.server_state.connections)


async def received(address, *pieces, is_steady=False):
    """What comes back until the server closes. A steady client goes on sending the last piece as long as it may."""
    async with asyncio.timeout(BOUND_SECONDS), connected(address) as (reader, writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        reading = asyncio.create_task(reader.read())
        while is_steady and not reading.done():
            writer.write(pieces[-1])
            await asyncio.sleep(0.01)
        try:
            return await reading
        except ConnectionResetError:
            return b""


def assert_error(reply, status, code):
    assert (reply.status, reply.json()["error"]["code"]) == (status, code)
    assert list(reply.json()["error"]) == ["message", "type", "param", "code"]
    assert reply.headers["connection"] == "close"
    assert re.fullmatch(r"req_[0-9a-f]{32}", reply.headers["x-request-id"])
    assert reply.headers["openai-version"] == "2020-10-01"
    assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("is_steady", [False, True], ids=["and then nothing", "a header after the other"])
async def test_headers_that_come_slowly_are_refused(is_steady):
    async with serving(header_timeout_seconds=SHORT_SECONDS) as (gateway, address):
        reply = reply_of(await received(address, HEAD, b"x-more: 1\r\n", is_steady=is_steady))
        assert_error(reply, 408, "request_timeout")
        assert "headers" in reply.json()["error"]["message"]
        assert num_cut(gateway, "request_timeout") == 1
        await until(lambda: num_connections(gateway) <= 1, address)


@pytest.mark.parametrize("said", [b"", b"\r\n"], ids=["nothing", "empty lines"])
async def test_a_client_that_says_nothing_is_closed_without_a_word(said):
    async with serving(header_timeout_seconds=SHORT_SECONDS) as (_, address):
        assert await received(address, said, is_steady=bool(said)) == b""


async def test_a_second_request_s_headers_may_not_come_slowly_either():
    async with serving(header_timeout_seconds=SHORT_SECONDS) as (_, address), connected(address) as (reader, writer):
        writer.write(GOOD)
        await reader.readuntil(b"usage")
        writer.write(HEAD)
        assert b"HTTP/1.1 408" in await asyncio.wait_for(reader.read(), BOUND_SECONDS)


async def test_a_client_that_is_slow_once_its_headers_are_here_has_the_body_s_time():
    async with serving() as (gateway, address), connected(address) as (reader, writer):
        writer.write(GOOD[: -len(BODY)])
        await until_true(lambda: gateway.admission.num_requests == 1)
        assert [connection.head_timer for connection in gateway.server.server_state.connections] == [None]
        writer.write(BODY)
        assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 200 OK\r\n"


async def test_an_idle_connection_is_closed():
    async with serving(keep_alive_seconds=SHORT_SECONDS) as (_, address):
        assert (await received(address, GET)).startswith(b"HTTP/1.1 200")


async def test_a_body_that_nobody_wants_is_not_received_for_ever():
    """The reply is out long ago; the client goes on sending what it had announced."""
    async with serving(header_timeout_seconds=SHORT_SECONDS) as (_, address):
        head = b"POST /v1/nothing HTTP/1.1\r\nhost: g\r\ncontent-length: 100000000\r\n\r\n"
        assert (await received(address, head, b"x", is_steady=True)).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD + b"x-long: ", b"x" * 10_000),
        (HEAD, b"x-many: 1\r\n" * 1000),
        (b"GET /", b"x" * 10_000),
        (HEAD + b"x-long: " + b"x" * 40_000 + b"\r\n\r\n",),
        (b"GET /livez?" + b"x" * 40_000 + b" HTTP/1.1\r\nhost: g\r\n\r\n",),
    ],
    ids=["a header without end", "headers without end", "a line without end", "a large header", "a long query"],
)
async def test_headers_are_held_to_their_size_whether_or_not_they_end(pieces):
    async with serving() as (_, address):
        reply = reply_of(await received(address, *pieces, is_steady=len(pieces) > 1))
        assert (reply.status, reply.json()["error"]["code"], reply.headers["connection"]) == (431, "headers_too_large", "close")


async def test_trailers_are_held_to_a_size_too():
    async with serving() as (gateway, address):
        head = HEAD + b"transfer-encoding: chunked\r\n\r\n"
        reply = reply_of(
            await received(address, head + b"1\r\n{\r\n0\r\n", b"x-trailer: " + b"x" * 10_000 + b"\r\n", is_steady=True)
        )
        assert_error(reply, 431, "headers_too_large")
        await until(lambda: gateway.admission.num_requests == 0, address)


async def test_a_large_body_in_the_smallest_chunks_is_served():
    body = json.dumps({"model": "m", "input": "x" * 200_000}).encode()
    async with serving() as (_, address):
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        content = HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        assert reply_of(await received(address, content)).status == 200


NO_HTTP = {
    "two lengths": HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "a length and chunks": HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length that is none": HEAD + b"content-length: five\r\n\r\nhello",
    "chunks that are none": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "an encoding nobody knows": HEAD + b"transfer-encoding: gzip\r\n\r\nhello",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\0" * 100,
    "a space in the path": b"GET /a b c HTTP/1.1\r\nhost: g\r\n\r\n",
    "HTTP/9": b"GET /livez HTTP/9.9\r\nhost: g\r\n\r\n",
    "a header without a colon": b"GET /livez HTTP/1.1\r\nhost g\r\n\r\n",
    "a folded header": b"GET /livez HTTP/1.1\r\nhost: g\r\n folded\r\n\r\n",
    "a zero byte": b"GET /livez HTTP/1.1\r\nhost: g\0\r\n\r\n",
    "a proxy's CONNECT": b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n",
}


@pytest.fixture(scope="module")
def address():
    config = Config(server=ServerSettings(port=0), auth=AuthSettings(mode="none"), models=(ModelRow(name="m", backend="fake"),))
    with served(Gateway(config, backends=[FakeBackend(m=FakeEmbedder())])) as address:
        yield address


@pytest.mark.parametrize("content", NO_HTTP.values(), ids=NO_HTTP.keys())
def test_what_is_no_http_is_refused_in_the_contracts_shape_and_ends_the_connection(address, content):
    reply = reply_of(exchanged(address, content + GET))
    assert_error(reply, 400, "invalid_value")
    assert reply.body.count(b"HTTP/1.1") == 0  # what followed is not answered: nobody knows where it begins


async def test_requests_sent_before_their_turn_are_answered_in_order(address):
    replies = await received(address, GOOD + GET + GOOD.replace(b"host: g", b"connection: close"))
    assert re.findall(rb"HTTP/1\.1 (\d+)", replies) == [b"200"] * 3
    assert [b'"list"' in part for part in replies.split(b"HTTP/1.1 ")[1:]] == [True, False, True]


async def test_a_request_s_beginning_is_not_charged_with_the_end_of_another(address):
    large = json.dumps({"model": "m", "input": "x" * 60_000}).encode()
    whole = HEAD + b"content-length: %d\r\n\r\n" % len(large) + large
    replies = await received(address, whole + GET[:10], GET[10:].replace(b"host: g", b"connection: close"))
    assert re.findall(rb"HTTP/1\.1 (\d+)", replies) == [b"200"] * 2


async def test_nonsense_after_a_request_does_not_take_its_reply(address):
    replies = await received(address, GOOD + b"NONSENSE\r\n\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d+)", replies) == [b"200"]
    assert b"connection: close" in replies


async def test_an_upgrade_is_declined():
    content = GET.replace(b"\r\n\r\n", b"\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n")
    async with serving(keep_alive_seconds=SHORT_SECONDS) as (_, address):
        assert (await received(address, content)).startswith(b"HTTP/1.1 200")


OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
OFFERING = GOOD.replace(HEAD, HEAD + OFFER)
CHUNKED = HEAD + OFFER + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize(
    "pieces",
    [
        [OFFERING],
        [OFFERING[:30], OFFERING[30:]],
        [OFFERING[: -len(BODY)], BODY[:5], BODY[5:]],
        [CHUNKED],
        [GET.replace(b"\r\n\r\n", b"\r\n" + OFFER + b"\r\n")],
    ],
    ids=["whole", "head in two", "body apart", "chunked", "no body"],
)
async def test_who_offers_http_2_is_served_in_1(address, pieces, caplog):
    last = GOOD.replace(HEAD, HEAD + b"connection: close\r\n")
    replies = await received(address, *pieces, last)
    assert re.findall(rb"HTTP/1\.1 (\d+)", replies) == [b"200"] * 2
    assert caplog.records == []


async def test_many_offers_at_once_are_all_served(address):
    get = GET.replace(b"\r\n\r\n", b"\r\n" + OFFER + b"\r\n")
    replies = await received(address, get * 2000 + OFFERING.replace(b"connection: ", b"connection: close, "))
    assert re.findall(rb"HTTP/1\.1 (\d+)", replies) == [b"200"] * 2001


async def test_nonsense_after_an_offer_is_told_so(address):
    replies = await received(address, OFFERING + b"NONSENSE\r\n\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d+)", replies) == [b"200"]
    assert b"connection: close" in replies


async def until_true(is_true):
    """As `until`, without a probe, which would be a connection too."""
    async with asyncio.timeout(BOUND_SECONDS):
        while not is_true():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def greedy(address):
    """A client that asks for a large reply and reads none of it."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, address)
        await loop.sock_sendall(client, request_of([str(number) for number in range(NUM_LARGE)]))
        yield client


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"send_timeout_seconds": SHORT_SECONDS}, "unread_timeout"), ({"max_unsent_bytes": 1_000_000}, "unread_bytes")],
    ids=["after some time", "beyond some bytes"],
)
async def test_a_client_that_never_reads_is_cut_off(settings, reason):
    async with serving(dimensions=LARGE_DIMENSIONS, **settings) as (gateway, address), greedy(address):
        await until(lambda: num_cut(gateway, reason) == 1, address)
        await until(lambda: num_connections(gateway) <= 1, address)
        assert (await posted(address, ["small"])).status == 200


async def test_the_client_that_has_waited_longest_is_cut_off_first():
    several = serving(dimensions=LARGE_DIMENSIONS, max_unsent_bytes=14_000_000)
    async with several as (gateway, address), greedy(address) as first:
        await until(lambda: len(gateway.server.slow_readers.connections) == 1, address)
        async with greedy(address):
            await until(lambda: num_cut(gateway, "unread_bytes") == 1, address)
            assert len(gateway.server.slow_readers.connections) == 1
            await until_true(lambda: has_ended(first))


def has_ended(client):
    """Reads what had arrived; True once the end of it was met."""
    try:
        while client.recv(1 << 20):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


async def test_a_client_that_reads_slowly_but_reads_has_its_reply():
    async with serving(dimensions=LARGE_DIMENSIONS, send_timeout_seconds=SHORT_SECONDS) as (gateway, address):
        async with asyncio.timeout(BOUND_SECONDS), greedy(address) as client:
            loop, num_bytes = asyncio.get_running_loop(), 0
            while chunk := await loop.sock_recv(client, 128 * 1024):
                num_bytes += len(chunk)
                await asyncio.sleep(SHORT_SECONDS / 200)
        assert num_cut(gateway, "unread_timeout") == 0
        assert num_bytes > 5_000_000


async def test_a_request_that_waits_for_its_turn_leaves_with_its_client_before_its_body_is_read():
    embedder = FakeEmbedder()
    embedder.gate = asyncio.Event()
    config = Config(
        server=ServerSettings(port=0),
        auth=AuthSettings(mode="none"),
        limits=LimitSettings(max_concurrent_requests=1, max_wait_seconds=60),
        models=(ModelRow(name="m", backend="fake"),),
    )
    gateway = Gateway(config, backends=[FakeBackend(m=embedder)])
    with served(gateway) as address:
        queue = gateway.generation.limiter.queue
        async with asyncio.timeout(BOUND_SECONDS), connected(address) as (_, writer):
            writer.write(GOOD)
            await until(lambda: gateway.admission.num_requests, address)
            async with connected(address) as (_, second):
                second.write(HEAD + b"content-length: 100000\r\n\r\n")
                await until(lambda: queue.num_waiting, address)
            await until(lambda: not queue.num_waiting, address)
            assert gateway.admission.num_requests == 1
        await until(lambda: gateway.admission.num_requests == 0, address)
