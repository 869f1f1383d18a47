"""The raw edge: any bytes on the socket end in an answer of ours or a closed connection, soon, and the server goes on."""

import json
import re
import socket

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.app import Gateway
from gateway.config import AuthSettings, Config, DoorSettings, ModelRow, ServerSettings
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.testing.gateway_thread import exchanged, served

GOOD = b'{"model": "m", "input": "hello"}'
METHODS = st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "DELETE", "TRACE", "BREW", "get", ""])
PATHS = st.one_of(
    st.sampled_from(
        ["/v1/embeddings", "/v1/models", "/v1/models/m", "/embeddings", "//", "*", "/%00", "/%ff%fe", "/openai/models"]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map("/".__add__),
)
VALUES = st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=40)
NAMES = st.sampled_from(
    ["authorization", "api-key", "content-type", "content-length", "transfer-encoding", "content-encoding", "expect", "connection",
     "x-request-id", "host", "origin", "access-control-request-method", "upgrade", "cookie", "range", "accept-encoding"]
)  # fmt: skip
BODIES = st.one_of(st.just(GOOD), st.binary(max_size=200), st.just(b""))


@pytest.fixture(scope="module")
def address():
    server = ServerSettings(port=0, body_timeout_seconds=1)
    doors = DoorSettings(tei=False)  # its POST / answers in TEI's words
    config = Config(server=server, auth=AuthSettings(mode="none"), doors=doors, models=(ModelRow(name="m", backend="fake"),))
    with served(Gateway(config, backends=[FakeBackend(m=FakeEmbedder())])) as address:
        yield address


def answers(received):
    """The statuses and bodies in what was received."""
    found = []
    while received:
        head, separator, rest = received.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.1 (\d{3})", head)
        assert status, received[:200]
        assert separator
        length = re.search(rb"(?i)content-length: (\d+)", head)
        size = int(length[1]) if length and int(status[1]) not in (204, 304) else 0
        found.append((int(status[1]), rest[:size]))
        received = rest[size:] if len(rest) >= size else b""
    return found


def assert_well(address, content, *, is_head=False):
    for status, body in answers(exchanged(address, content)) if not is_head else []:
        assert status < 500 or status == 503
        if status >= 400 and body:
            assert list(json.loads(body)["error"]) == ["message", "type", "param", "code"]


any_time = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@any_time
@given(method=METHODS, path=PATHS, headers=st.lists(st.tuples(NAMES, VALUES), max_size=5), body=BODIES)
def test_any_request_is_answered(address, method, path, headers, body):
    lines = [f"{method} {path} HTTP/1.1", "host: gateway", "connection: close", *(f"{name}: {value}" for name, value in headers)]
    content = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
    assert_well(address, content, is_head=method == "HEAD")


@any_time
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=30), max_size=5), end=st.sampled_from([b"0\r\n\r\n", b"0\r\n", b"", b"zz\r\n"])
)
def test_any_chunks_are_answered_or_the_connection_closed(address, chunks, end):
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    assert_well(address, head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end)


@any_time
@given(content=st.binary(min_size=1, max_size=300))
def test_any_bytes_are_survived(address, content):
    assert_well(address, content)


@any_time
@given(cut=st.integers(0, 200))
def test_a_request_cut_anywhere_harms_nobody(address, cut):
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(GOOD)
    assert_well(address, (head + GOOD)[:cut])


def test_a_good_request_in_chunks_is_served(address):
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in GOOD)
    assert answers(exchanged(address, head + chunks + b"0\r\n\r\n"))[0][0] == 200


def test_what_is_no_http_is_answered_in_the_contracts_shape(address):
    [(status, body)] = answers(exchanged(address, b"NONSENSE\r\n\r\n"))
    assert status == 400
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_head_is_answered_without_a_body_and_its_connection_goes_on(address, capfd):
    heads = [f"HEAD {path} HTTP/1.1\r\nhost: g\r\n\r\n" for path in ("/v1/models", "/livez", "/v1/nothing", "/v1/embeddings", "/")]
    last = "GET /livez HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n"
    with socket.create_connection(address, timeout=30) as client:
        client.sendall("".join([*heads, last]).encode())
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+)", received) == [b"200", b"200", b"404", b"405", b"200", b"200"]
    assert [part.partition(b"\r\n\r\n")[2] != b"" for part in received.split(b"HTTP/1.1 ")[1:]] == [False] * 5 + [True]
    assert "internal_error" not in "".join(capfd.readouterr())


def test_afterwards_the_server_still_serves(address):
    reply = httpx.post(f"http://{address[0]}:{address[1]}/v1/embeddings", content=GOOD)
    assert reply.status_code == 200


@pytest.mark.parametrize(
    ("line", "version", "expected"),
    [
        ("x: y", "1.1", (None, b"keep-alive: timeout=67")),
        ("connection: close", "1.1", (b"connection: close", None)),
        ("connection: Close, TE", "1.1", (b"connection: close", None)),
        ("x: y", "1.0", (b"connection: close", None)),
    ],
)
def test_a_client_is_told_less_than_the_connection_is_kept(address, line, version, expected):
    for path in ("/livez", "/v1/nothing"):
        head = f"GET {path} HTTP/{version}\r\nhost: g\r\n{line}\r\n\r\n"
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(head.encode())
            received = client.recv(65536)
        lines = received.partition(b"\r\n\r\n")[0].split(b"\r\n")
        told = {
            name: next((each for each in lines if each.startswith(name + b":")), None) for name in (b"connection", b"keep-alive")
        }
        assert (told[b"connection"], told[b"keep-alive"]) == expected
