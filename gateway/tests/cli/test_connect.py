"""`gateway config check --connect`: what a configuration names is really reached, each within a deadline, and no secret is told."""

import json
import signal
import socket
import threading
from contextlib import contextmanager

import pytest

from gateway.cli import connect
from gateway.cli.connect import outcome_of
from gateway.embedding.backend import ConnectionCheck
from gateway.testing.postgres import Postgres
from gateway.testing.redis_server import RedisServer
from gateway.tests.cli.conftest import Command

SECRET = "unmistakable-secret"
LOCAL = {"name": "all-MiniLM-L6-v2", "source": "sentence-transformers/all-MiniLM-L6-v2"}


@contextmanager
def nobody():
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    yield f"127.0.0.1:{port}"


@contextmanager
def silent():
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def upstream(status: int = 200):
    """A server of one vector."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            vector = {"object": "embedding", "index": 0, "embedding": [1.0, 0.0, 0.0]}
            answer = {"object": "list", "data": [vector], "model": "m", "usage": {"prompt_tokens": 5, "total_tokens": 5}}
            content = json.dumps(answer if status == 200 else {"error": {"message": "no"}}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def checked(gateway: Command, *models, **environ):
    ended = gateway("config", "check", "--connect", GATEWAY__MODELS=json.dumps([LOCAL, *models]), **environ)
    assert SECRET not in ended.out + ended.err
    assert "Traceback" not in ended.err
    return ended


def row(name, *addresses, **more):
    return {
        "name": name, "backend": "openai", "urls": [f"http://{address}/v1" for address in addresses], "key": {"env": "THEIR_KEY"},
        "read_timeout_seconds": 1, **more,
    }  # fmt: skip


def test_a_configuration_that_names_nobody_is_ok_and_nothing_is_made(gateway, tmp_path):
    ended = checked(gateway)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"key store {tmp_path / 'data/gateway.db'}: ok (made at the first start)\nok: all-MiniLM-L6-v2\n"
    assert not (tmp_path / "data").exists()


def test_a_store_that_is_there_is_asked_and_one_that_is_no_database_is_told(gateway, tmp_path):
    gateway("keys", "create")
    assert f"key store {tmp_path / 'data/gateway.db'}: ok\n" in checked(gateway).out
    (tmp_path / "data/gateway.db").write_bytes(b"no database" * 1000)
    ended = checked(gateway)
    assert (ended.code, "file is not a database" in ended.out) == (2, True)


def test_every_address_of_every_row_is_asked_members_of_groups_too(gateway):
    with upstream() as good, upstream(401) as closed, nobody() as away, silent() as hangs:
        group = {
            "name": "both", "backend": "group",
            "members": [row("x", good) | {"name": "first"}, row("y", away) | {"name": "second"}],
        }  # fmt: skip
        ended = checked(gateway, row("one", good, away, hangs), row("two", closed), group, THEIR_KEY=SECRET)
    lines = dict(line.split(": ", 1) for line in ended.out.splitlines())
    assert ended.code == 2
    assert lines[f"models[one] at {good}/v1"] == "ok (3 dimensions)"
    assert lines[f"models[one] at {away}/v1"].startswith("FAILED: connect: ")
    assert lines[f"models[one] at {hangs}/v1"].startswith("FAILED: timeout: ")
    assert lines[f"models[two] at {closed}/v1"].startswith("FAILED: refused: ")
    assert lines[f"models[both/first] at {good}/v1"] == "ok (3 dimensions)"
    assert lines[f"models[both/second] at {away}/v1"].startswith("FAILED: connect: ")
    assert ended.err.startswith(f"gateway: 4 of 7 cannot be used: models[one] at {away}/v1, ")
    assert ended.err.count("\n") == 1
    assert "ok: " not in ended.out.splitlines()[-1]


def test_without_the_option_nobody_is_asked(gateway):
    with nobody() as away:
        environ = {"GATEWAY__MODELS": json.dumps([row("one", away)]), "THEIR_KEY": SECRET, "REDIS": f"redis://{away}/0"}
        ended = gateway("config", "check", GATEWAY__LIMITS__REDIS_URL='{"env": "REDIS"}', **environ)
    assert (ended.code, ended.out) == (0, "ok: one\n")


@pytest.mark.parametrize("state", ["up", "password", "halted", "away"])
def test_redis_is_asked_as_a_gateway_asks_it(gateway, tmp_path, state):
    server = RedisServer(tmp_path, "--requirepass", SECRET)
    url = f"redis://:{SECRET if state != 'password' else SECRET + '2'}@127.0.0.1:{server.port}/0"
    process = None
    if state != "away":
        process = server.process = start(server)
    try:
        if state == "halted":
            process.send_signal(signal.SIGSTOP)
        ended = checked(
            gateway, GATEWAY__LIMITS__REDIS_URL='{"env": "REDIS"}', GATEWAY__LIMITS__REDIS_TIMEOUT_SECONDS="1", REDIS=url
        )
    finally:
        if process is not None:
            process.kill()
            process.wait()
    [line] = [line for line in ended.out.splitlines() if line.startswith("limits.redis_url: ")]
    words = {"up": "ok", "password": "FAILED: WRONGPASS", "halted": "FAILED: no answer within 1 s", "away": "FAILED: it cannot be"}
    assert line.removeprefix("limits.redis_url: ").startswith(words[state])
    assert ended.code == (0 if state == "up" else 2)


def start(server):
    """One with a password: RedisServer's own look at it would be refused."""
    import subprocess
    import time

    command = [server.program, "--bind", "127.0.0.1", "--port", str(server.port), "--save", "", *server.options]
    process = subprocess.Popen(command, cwd=server.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.port)) == 0:
                return process
        time.sleep(0.01)
    raise TimeoutError("redis-server")


@pytest.mark.parametrize("place", ["nobody", "silent"])
def test_a_postgresql_that_is_unavailable_or_never_answers_is_told_within_the_deadline(gateway, place):
    with {"nobody": nobody, "silent": silent}[place]() as away:
        url = f"postgresql://somebody:{SECRET}@{away}/db"
        ended = checked(gateway, GATEWAY__STORE__DATABASE_URL='{"env": "DATABASE"}', DATABASE=url)
    [line] = [line for line in ended.out.splitlines() if line.startswith("key store ")]
    assert line.startswith("key store at 127.0.0.1: FAILED: ")
    assert ended.code == 2


def test_a_postgresql_that_answers_is_ok_also_before_it_has_tables(gateway, postgres: Postgres):
    ended = checked(gateway, GATEWAY__STORE__DATABASE_URL='{"env": "DATABASE"}', DATABASE=postgres.new_database())
    assert (ended.code, ended.out.splitlines()[0]) == (0, "key store at 127.0.0.1: ok")


async def test_what_never_answers_is_given_up_at_the_deadline(monkeypatch):
    monkeypatch.setattr(connect, "DEADLINE_SECONDS", 0.05)
    release = threading.Event()

    def hang():
        release.wait(30)
        return ""

    outcome = await outcome_of(ConnectionCheck("it", lambda: connect.in_thread(hang)))
    release.set()
    assert str(outcome) == "it: FAILED: no answer within 0.05 seconds"


def test_a_cluster_where_nobody_listens_is_told(gateway):
    with nobody() as away:
        ended = checked(gateway, {"name": "r", "backend": "ray", "address": away, "source": LOCAL["source"]})
    [line] = [line for line in ended.out.splitlines() if line.startswith("models[r] ")]
    assert (ended.code, line) == (2, f"models[r] on the cluster at {away}: FAILED: Connection refused")
