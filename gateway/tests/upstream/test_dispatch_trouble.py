"""What can go wrong between two servers, done on real sockets."""

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
import time
from dataclasses import dataclass

import numpy as np
import pytest
import structlog.testing
import trustme

from gateway.errors import DeadlinePassed, InputTooLong, OperatorError, Overloaded, UpstreamError, UpstreamUnavailable
from gateway.metrics import Metrics
from gateway.testing import upstream_server as standin
from gateway.testing.upstream_server import Said, Standin
from gateway.tests.upstream.conftest import embedded, over, started, value_of

pytestmark = pytest.mark.timeout(60)
BOUND_SECONDS = 15


async def until(is_true):
    async with asyncio.timeout(BOUND_SECONDS):
        while not is_true():
            await asyncio.sleep(0.005)


def once(*first, then=standin.openai):
    """Answers the first so, and the rest well."""
    waiting = list(first)

    def answer(request):
        say = waiting.pop(0) if waiting else then
        return say(request)

    return answer


def saying(said):
    return lambda _: said


def sent(server, text="a"):
    """How often a text of a client's was sent; what was sent to see whether the server lives is not counted."""
    return sum(text in request.body["input"] for request in server.requests)


def counted(remote, name, **labels):
    return value_of(remote, name, upstream="m", **labels) or 0


HTML = Said(502, b"<html><head><title>502 Bad Gateway</title></head></html>", {"content-type": "text/html"})
BUSY = standin.openai_error(429, "Rate limit reached", "rate_limit_exceeded", "requests", **{"retry-after": "0"})
# server/sched.go of ollama/ollama: ErrMaxQueue
FULL = Said(503, {"error": "server busy, please try again.  maximum pending requests exceeded"})


def cut(request):
    said = standin.openai(request)
    said.cut_at = len(said.bytes()) // 2
    return said


def dropped(request):
    return Said(raw=b"", cut_at=0)


@pytest.mark.parametrize(
    "trouble",
    [dropped, cut, saying(HTML), saying(BUSY), saying(FULL), saying(Said(504)), saying(Said(503, headers={"retry-after": "0"}))],
)
async def test_what_may_pass_is_sent_once_more_and_the_client_sees_nothing(trouble):
    async with over("openai", standin.openai) as (server, remote):
        server.answer = once(trouble)
        vectors = await embedded(remote, "a", "b")
        assert len(server.requests) == 2
        assert counted(remote, "gateway_upstream_retries_total") == 1
        assert counted(remote, "gateway_upstream_requests_total", outcome="ok") == 2  # the probe's too
    np.testing.assert_allclose(vectors.rows, standin.vectors(["a", "b"]), atol=1e-6)


@pytest.mark.parametrize(
    ("trouble", "error", "outcome"),
    [
        (dropped, UpstreamError, "cut"),
        (cut, UpstreamError, "cut"),
        (saying(HTML), UpstreamError, "status_502"),
        (saying(FULL), UpstreamUnavailable, "status_503"),
        (saying(BUSY), UpstreamUnavailable, "rate_limited"),
    ],
)
async def test_what_does_not_pass_is_told_after_the_second_time(trouble, error, outcome):
    async with over("openai", standin.openai) as (server, remote):
        server.answer = trouble
        with pytest.raises(error, match="The upstream of the model `m` ") as failed:
            await embedded(remote, "a")
        assert sent(server) == 2
        assert counted(remote, "gateway_upstream_requests_total", outcome=outcome) >= 2
    assert failed.value.headers()["Retry-After"] == "1"
    assert "127.0.0.1" not in failed.value.message


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (Said(500, {"error": "boom: a secret text"}), "failed with the status 500"),
        (Said(400, {"error": {"message": "a secret text"}}), "refused the request with the status 400"),
        (Said(401, {"error": {"message": "a secret text"}}), "refused our key"),
        (Said(301, b"", {"location": "http://elsewhere/a-secret-text"}), "answered with a redirect, which is not followed"),
        (Said(429, b"", {"retry-after": "30"}), "has too much to do"),
        (Said(503, b"", {"retry-after": "30"}), "is not available"),
        (Said(200, b"<html>a secret text</html>", {"content-type": "text/html"}), "its reply is not what this protocol says"),
        (Said(raw=b"SSH-2.0-OpenSSH_9.6 a secret text\r\n"), "answered what is no HTTP"),
        (Said(raw=b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"), "answered what is no HTTP"),
    ],
)
async def test_what_a_retry_would_not_help_is_sent_once(trouble, reason):
    async with over("openai", standin.openai) as (server, remote):
        server.answer = saying(trouble)
        with pytest.raises((UpstreamError, UpstreamUnavailable), match=reason) as failed:
            await embedded(remote, "a")
        assert sent(server) == 1
    assert "secret" not in failed.value.message


async def test_nothing_is_sent_twice_where_the_row_says_so():
    async with over("openai", standin.openai, retry=False) as (server, remote):
        server.answer = once(dropped)
        with pytest.raises(UpstreamError):
            await embedded(remote, "a")
        assert sent(server) == 1


async def test_a_storm_of_429_is_not_doubled_and_opens_nothing():
    async with over("openai", standin.openai) as (server, remote):
        server.answer = saying(BUSY)
        for _ in range(60):
            with pytest.raises(UpstreamUnavailable, match="has too much to do"):
                await embedded(remote, "a")
        assert 60 + 5 <= len(server.requests) <= 60 + 10 + 7  # the reserve, and a tenth
        server.answer = standin.openai
        await embedded(remote, "a")


async def test_a_long_reply_is_cut_off_where_no_vectors_can_be_that_large():
    async with over("openai", standin.openai) as (server, remote):
        for said in (Said(body=b" " * 10_000_000), Said(raw=b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 10_000_000)):
            server.answer = saying(said)
            with pytest.raises(UpstreamError, match="answered far more than was asked for"):
                await embedded(remote, "a")
        assert len(server.requests) == 2


async def test_a_packed_reply_is_unpacked_and_bounded_as_unpacked():
    def packed(request):
        said = standin.openai(request)
        return Said(body=gzip.compress(json.dumps(said.body).encode()), headers={"content-encoding": "gzip"})

    async with over("openai", packed) as (server, remote):
        vectors = await embedded(remote, "a")
        assert server.requests[0].headers["accept-encoding"] == "identity"
        bomb = gzip.compress(b" " * 50_000_000)
        server.answer = saying(Said(body=bomb, headers={"content-encoding": "gzip"}))
        with pytest.raises(UpstreamError, match="answered far more than was asked for"):
            await embedded(remote, "a")
        server.answer = saying(Said(body=b"no gzip at all", headers={"content-encoding": "gzip"}))
        with pytest.raises(UpstreamError):
            await embedded(remote, "a")
    np.testing.assert_allclose(vectors.rows, standin.vectors(["a"]), atol=1e-6)


async def test_a_silent_upstream_is_given_up_after_its_time_and_not_asked_again():
    gate = asyncio.Event()

    async with over("openai", standin.openai, read_timeout_seconds=0.2) as (server, remote):
        server.answer = saying(Said(gate=gate))
        with pytest.raises(UpstreamError, match="did not answer in time"):
            await embedded(remote, "a")
        assert len(server.requests) == 1
        await until(lambda: server.num_left == 1)


async def test_an_address_that_nobody_answers_at_is_given_up_after_its_time():
    with contextlib.ExitStack() as stack:
        port = deaf_port(stack)
        async with over("openai", standin.openai, connect_timeout_seconds=0.2) as (_, remote):
            [endpoint] = remote.endpoints.endpoints
            endpoint.url = endpoint.url.with_port(port)
            with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
                await embedded(remote, "a")
            assert counted(remote, "gateway_upstream_requests_total", outcome="connect") == 2


def deaf_port(stack):
    """One whose queue of connections is full, so that another is neither accepted nor refused."""
    listening = stack.enter_context(socket.socket())
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    for _ in range(4):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listening.getsockname())
    return listening.getsockname()[1]


async def test_the_deadline_of_a_request_ends_it_there_too():
    gate = asyncio.Event()
    async with over("openai", standin.openai) as (server, remote):
        server.answer = saying(Said(gate=gate))
        started_at = time.monotonic()
        with pytest.raises(DeadlinePassed):
            await embedded(remote, "a", seconds=0.2)
        assert time.monotonic() - started_at < 5
        await until(lambda: server.num_left == 1)
        assert counted(remote, "gateway_upstream_requests_total", outcome="cancelled") == 1


async def test_a_reply_that_only_drips_is_ended_by_the_deadline_as_no_silence_is_long_enough():
    def drips(request):
        said = standin.openai(request)
        said.drips = True
        return said

    async with over("openai", standin.openai, read_timeout_seconds=0.2) as (server, remote):
        server.answer = drips
        with pytest.raises(DeadlinePassed):
            await embedded(remote, "a", seconds=0.6)
        await until(lambda: server.num_open == 0)


async def test_a_client_who_leaves_ends_its_request_there_and_blames_nobody():
    gate = asyncio.Event()
    async with over("openai", standin.openai, breaker_failures=1) as (server, remote):
        server.answer = saying(Said(gate=gate))
        task = asyncio.create_task(embedded(remote, "a"))
        await until(lambda: server.num_open == 1)
        assert counted(remote, "gateway_upstream_outstanding_requests") == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.num_left == 1)
        assert counted(remote, "gateway_upstream_outstanding_requests") == 0
        server.answer = standin.openai
        await embedded(remote, "a")


async def test_a_failing_upstream_is_left_alone_and_comes_back_by_itself():
    async with over("openai", standin.openai, breaker_failures=3, breaker_seconds=0.3, retry=False) as (server, remote):
        server.answer = saying(Said(500))
        for _ in range(3):
            with pytest.raises(UpstreamError):
                await embedded(remote, "a")
        assert counted(remote, "gateway_upstream_up") == 0
        assert (remote.health().state, remote.health().is_available) == ("ready", False)
        with pytest.raises(UpstreamUnavailable, match="is cooling down") as refused:
            await embedded(remote, "a")
        assert refused.value.headers()["Retry-After"] == "1"
        assert len(server.requests) == 1 + 3
        assert counted(remote, "gateway_upstream_requests_total", outcome="open") == 1
        server.answer = standin.openai
        await until(lambda: remote.health().is_available)
        await embedded(remote, "a")
        await embedded(remote, "a")
        assert counted(remote, "gateway_upstream_up") == 1
        assert remote.endpoints.endpoints[0].breaker.state == "closed"


async def test_an_upstream_that_fails_is_told_of_once_and_again_when_it_is_back():
    async with over("openai", standin.openai, breaker_failures=3, breaker_seconds=0.2, retry=False) as (server, remote):
        with structlog.testing.capture_logs() as logs:
            server.answer = saying(Said(500))
            for _ in range(4):
                with pytest.raises((UpstreamError, UpstreamUnavailable)):
                    await embedded(remote, "a")
            await until(lambda: remote.health().is_available)
            with pytest.raises(UpstreamError):
                await embedded(remote, "a")
            server.answer = standin.openai
            await until(lambda: remote.health().is_available)
            assert outages(logs) == [("upstream_unavailable", "warning")]
            await embedded(remote, "a")
            await embedded(remote, "a")
        assert outages(logs) == [("upstream_unavailable", "warning"), ("upstream_available", "info")]
        [told, _] = [each for each in logs if each["event"] in OUTAGE]
        assert (told["model"], told["address"]) == ("m", server.url.removeprefix("http://"))
        assert told["reason"] == "cooling down after failures, the last: status_500"


async def test_an_upstream_that_hangs_is_told_of_before_any_request_fails(monkeypatch):
    monkeypatch.setattr("gateway.upstream.dispatch.SILENT_SECONDS", 0.05)
    gate = asyncio.Event()

    def held(request):
        said = standin.openai(request)
        said.gate = gate
        return said

    async with over("openai", standin.openai) as (server, remote):
        with structlog.testing.capture_logs() as logs:
            assert counted(remote, "gateway_upstream_oldest_request_seconds") == 0
            server.answer = held
            tasks = [asyncio.create_task(embedded(remote, f"text {number}")) for number in range(3)]
            await until(lambda: outages(logs))
            assert 0.05 <= counted(remote, "gateway_upstream_oldest_request_seconds") < BOUND_SECONDS
            gate.set()
            await asyncio.gather(*tasks)
        assert outages(logs) == [("upstream_unavailable", "warning"), ("upstream_available", "info")]
        assert counted(remote, "gateway_upstream_oldest_request_seconds") == 0


OUTAGE = {"upstream_unavailable", "upstream_available"}


def outages(logs):
    return [(each["event"], each["log_level"]) for each in logs if each["event"] in OUTAGE]


async def test_of_several_addresses_one_that_fails_takes_nobody_with_it():
    async with Standin(standin.openai).serving() as good, Standin(standin.openai).serving() as bad:
        urls = [bad.url, good.url]
        async with started("openai", good, urls=urls, breaker_failures=2) as remote:
            bad.requests.clear()
            bad.answer = saying(Said(503))
            for number in range(20):
                vectors = await embedded(remote, f"text {number}")
                np.testing.assert_allclose(vectors.rows, standin.vectors([f"text {number}"]), atol=1e-6)
            assert len(good.requests) == 20
            assert len(bad.requests) == 2
            address = bad.url.removeprefix("http://")
            assert counted(remote, "gateway_upstream_breaker_open", address=address) == 1
            assert counted(remote, "gateway_upstream_up") == 1


async def test_the_less_busy_of_two_addresses_is_asked():
    gate = asyncio.Event()

    def held(request):
        said = standin.openai(request)
        said.gate = gate
        return said

    async with (
        Standin(standin.openai).serving() as one,
        Standin(standin.openai).serving() as two,
        started("openai", one, urls=[one.url, two.url]) as remote,
    ):
        one.answer = two.answer = held
        tasks = [asyncio.create_task(embedded(remote, f"text {number}")) for number in range(10)]
        await until(lambda: one.num_open + two.num_open == 10)
        assert (one.num_open, two.num_open) == (5, 5)
        gate.set()
        await asyncio.gather(*tasks)


@dataclass
class Authority:
    """A server's TLS, and the file of who vouches for it."""

    context: ssl.SSLContext
    path: str


@pytest.fixture
def authority(tmp_path):
    own = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.issue_cert("127.0.0.1").configure_cert(context)
    own.cert_pem.write_to_path(tmp_path / "ca.pem")
    return Authority(context, str(tmp_path / "ca.pem"))


async def test_a_private_authority_is_trusted_where_its_file_is_named(authority):
    async with Standin(standin.openai).serving(tls=authority.context) as server:
        async with started("openai", server, ca_file=authority.path) as remote:
            vectors = await embedded(remote, "a")
            np.testing.assert_allclose(vectors.rows, standin.vectors(["a"]), atol=1e-6)
        with pytest.raises(OperatorError, match="could not be trusted"):
            async with started("openai", server):
                pass


async def test_tls_spoken_to_a_server_without_it_is_told():
    async def answer(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, Standin(standin.openai).serving() as unused:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(OperatorError, match="could not be trusted"):
            async with started("openai", unused, urls=[url]):
                pass


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_a_file_of_authorities_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    async with Standin(standin.openai).serving() as server:
        with pytest.raises(OperatorError, match=r"ca_file: .*ca\.pem cannot be read"):
            async with started("openai", server, ca_file=str(path)):
                pass


async def test_a_proxy_is_gone_through_with_its_credentials(monkeypatch):
    monkeypatch.setenv("PROXY_LOGIN", "user:päss")
    async with Standin(standin.openai).serving() as proxy:
        settings = {"urls": ["http://embeddings.invalid/v1"], "proxy": proxy.url, "proxy_credentials": {"env": "PROXY_LOGIN"}}
        async with started("openai", proxy, **settings) as remote:
            await embedded(remote, "a")
            assert proxy.requests[0].path == "http://embeddings.invalid/v1/embeddings"
            assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpww6Rzcw=="


async def test_a_tunnel_s_password_stays_with_the_proxy(monkeypatch, authority):
    monkeypatch.setenv("PROXY_LOGIN", "user:password")
    asked = []

    async def tunnel(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        there_reader, there = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(poured(reader, there), poured(there_reader, writer))

    async with (
        Standin(standin.openai).serving(tls=authority.context) as server,
        await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy,
    ):
        address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        settings = {"proxy": address, "proxy_credentials": {"env": "PROXY_LOGIN"}, "ca_file": authority.path}
        async with started("openai", server, **settings) as remote:
            await embedded(remote, "a")
            assert "proxy-authorization" not in server.requests[0].headers
    assert b"proxy-authorization: basic dxnlcjpwyxnzd29yza==" in asked[0].lower()


async def poured(reader, writer):
    """Passes on what comes, until that is over; then nothing more can be written."""
    with contextlib.suppress(ConnectionError), contextlib.closing(writer):
        while chunk := await reader.read(65536):
            writer.write(chunk)
    writer.close()


async def test_a_text_that_turns_out_too_long_is_named():
    async with over("tei", standin.tei) as (server, remote):
        server.answer = saying(standin.tei_error(413, "`inputs` must have less than 512 tokens. Given: 600", "Validation"))
        with pytest.raises(InputTooLong, match=r"Invalid 'input\[0\]': maximum input length is 512 tokens"):
            await embedded(remote, "a")


async def test_a_large_reply_does_not_hold_up_the_loop():
    async with over("openai", lambda request: standin.openai(request, encoding="float"), max_inputs=2000) as (server, remote):
        texts = [f"text {number}" for number in range(2000)]
        said = standin.openai(standin.Request("POST", "", {}, json.dumps({"model": "m", "input": texts}).encode()))
        content = said.bytes()
        server.answer = saying(Said(raw=content))
        vectors = await embedded(remote, *texts)
    np.testing.assert_allclose(vectors.rows, standin.vectors(texts), atol=1e-6)


async def test_what_still_waits_when_it_is_closed_fails_with_an_error_of_ours():
    gate = asyncio.Event()
    async with over("openai", standin.openai) as (server, remote):
        server.answer = saying(Said(gate=gate))
        task = asyncio.create_task(embedded(remote, "a"))
        await until(lambda: server.num_open == 1)
        await remote.close()
        with pytest.raises((UpstreamError, UpstreamUnavailable, Overloaded)):
            await task
        await remote.close()


async def test_metrics_of_two_upstreams_are_kept_apart():
    metrics = Metrics()
    async with (
        Standin(standin.openai).serving() as server,
        started("openai", server, name="m", metrics=metrics) as one,
        started("openai", server, name="n", metrics=metrics),
    ):
        await embedded(one, "a")
    value = metrics.registry.get_sample_value
    assert value("gateway_upstream_requests_total", {"upstream": "m", "outcome": "ok"}) == 2
    assert value("gateway_upstream_requests_total", {"upstream": "n", "outcome": "ok"}) == 1
