"""What an image's HEALTHCHECK is told: one line, exit code 0 or 1, soon, and without importing what serves."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from gateway.testing.gateway_thread import served
from gateway.tests.api.faulty import HeldEncoder, gateway_of

HEAVY = ("torch", "litestar", "uvicorn", "numpy", "sqlalchemy", "openvino", "prometheus_client", "gateway.app")


@contextmanager
def answering(content):
    """A server that says `content` to the first who asks; None: it never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(content)

        thread = threading.Thread(target=answer) if content is not None else None
        if thread:
            thread.start()
        yield listening.getsockname()[1]
        if thread:
            thread.join(10)


@pytest.mark.parametrize("flags", [[], ["--live"]])
def test_a_ready_gateway_is_healthy(gateway, tmp_path, flags):
    with served(gateway_of(HeldEncoder(), folder=tmp_path)) as (_, port):
        ended = gateway("healthcheck", *flags, GATEWAY__SERVER__HOST="0.0.0.0", GATEWAY__SERVER__PORT=str(port))
    expected = "/livez: ok (200)\n" if flags else "/readyz: ready (200)\n"
    assert (ended.code, ended.out, ended.err) == (0, expected, "")


def test_a_leaving_gateway_is_not_ready_but_alive(gateway, tmp_path):
    leaving = gateway_of(HeldEncoder(), folder=tmp_path)
    with served(leaving) as (_, port):
        leaving.is_shutting_down = True
        asked = [gateway("healthcheck", *flags, GATEWAY__SERVER__PORT=str(port)) for flags in ([], ["--live"])]
    assert [(ended.code, ended.out) for ended in asked] == [(1, "/readyz: draining (503)\n"), (0, "/livez: ok (200)\n")]


def test_what_is_missing_is_named(gateway):
    body = b'{"status":"loading","waiting_for":["m","n"]}'
    with answering(b"HTTP/1.1 503 No\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)) as port:
        ended = gateway("healthcheck", GATEWAY__SERVER__PORT=str(port))
    assert (ended.code, ended.out) == (1, "/readyz: loading (503), waiting_for: m, n\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]", "status"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 3\r\n\r\nno!", "status 500"),
        (b"SSH-2.0-OpenSSH\r\n", "no answer"),
        (b"", "no answer"),
    ],
)
def test_whoever_else_listens_there_gets_one_line_too(gateway, content, words):
    with answering(content) as port:
        ended = gateway("healthcheck", GATEWAY__SERVER__PORT=str(port))
    assert words in ended.out
    assert ended.out.count("\n") == 1
    assert ended.err == ""


def test_a_server_that_says_nothing_is_not_waited_for(gateway):
    with answering(None) as port:
        started = time.monotonic()
        ended = gateway("healthcheck", "--timeout", "0.2", GATEWAY__SERVER__PORT=str(port))
        assert time.monotonic() - started < 20
    assert ended.code == 1
    assert ended.out == f"/readyz: no answer from 127.0.0.1:{port} within 0.2 s\n"


def test_nobody_listening_is_exit_code_1(gateway):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    ended = gateway("healthcheck", GATEWAY__SERVER__PORT=str(port))
    assert (ended.code, ended.out) == (1, f"/readyz: no answer from 127.0.0.1:{port}: Connection refused\n")


def test_a_wrong_configuration_is_exit_code_2(gateway):
    assert gateway("healthcheck", GATEWAY__SERVER__PORT="x").code == 2


def test_asking_imports_nothing_of_the_server(tmp_path):
    """A second of imports every ten seconds would be a tenth of a core."""
    program = (
        "import sys; sys.argv = ['gateway', 'healthcheck']\n"
        "from gateway.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 1, end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60)
    assert ended.stdout.splitlines()[-1] == "[]"
