"""Answers that are given before the body is read, to clients that send all of it first, on connections that end after it."""

import json
import socket
import urllib.error
import urllib.request

import pytest

from compat_tests.process import Gateway

BODY = b'{"model": "m", "input": "' + b"x" * 20_000_000 + b'"}'  # beyond server.max_body_bytes
EARLY = {401: ("/v1/embeddings", False), 404: ("/v1/nothing", True), 413: ("/v1/embeddings", True)}


@pytest.mark.parametrize("status", EARLY)
def test_urllib_reads_why_it_was_refused(gateway: Gateway, key: str, status: int) -> None:
    path, has_key = EARLY[status]
    request = urllib.request.Request(f"{gateway.origin}{path}", data=BODY, headers={"api-key": key} if has_key else {})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == status
    assert list(json.load(refused.value)["error"]) == ["message", "type", "param", "code"]


@pytest.mark.parametrize("status", EARLY)
def test_a_client_of_http_1_0_reads_why_it_was_refused(gateway: Gateway, key: str, status: int) -> None:
    path, has_key = EARLY[status]
    head = f"POST {path} HTTP/1.0\r\ncontent-length: {len(BODY)}\r\n" + (f"api-key: {key}\r\n" if has_key else "") + "\r\n"
    host, port = gateway.origin.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(head.encode() + BODY)
        assert client.makefile("rb").readline().split()[1] == str(status).encode()
