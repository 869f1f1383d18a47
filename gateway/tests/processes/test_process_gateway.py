"""A whole gateway of a supervisor, two fronts and an engine: what its clients see while processes die, and how it ends."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.testing.process_program import MODEL, expected_vector
from gateway.testing.programs import free_port
from gateway.tests.processes.conftest import Process, running, until
from gateway.tests.processes.test_supervisor import is_gone

WAIT_SECONDS = 30
NAMES = ("engine", "front-0", "front-1")


class Processes(Process):
    program = ("-m", "gateway.testing.process_program")

    def __init__(self, folder, **settings):
        settings = {"GATEWAY__SERVER__WORKERS": "2", "GATEWAY__AUTH__MODE": "none", "GATEWAY__LOG__FORMAT": "json", **settings}
        super().__init__(folder, **settings)
        self.environment.pop("GATEWAY__ADMIN__ENABLED")
        self.environment.pop("GATEWAY__MODELS")

    def pids(self, name):
        return [int(pid) for pid in re.findall(rf'"process":"{name}","pid":(\d+),"event":"process_started"', self.log)]

    def ready_pids(self, name):
        return [int(pid) for pid in re.findall(rf'"process":"{name}","pid":(\d+),"event":"process_ready"', self.log)]

    def all_ready(self):
        return all(self.ready_pids(name)[-1:] == self.pids(name)[-1:] for name in NAMES)

    def kill_one(self, name):
        pid = self.pids(name)[-1]
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_back(self, name, before):
        until(lambda: self.ready_pids(name)[-1] != before, WAIT_SECONDS)

    def embed(self, *texts, client=None, **fields):
        return (client or httpx).post(f"{self.origin}/v1/embeddings", json={"model": MODEL, "input": texts, **fields}, timeout=30)

    def metrics(self, origin=None):
        text = httpx.get(f"{origin or self.origin}/metrics", timeout=30).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        found = {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}
        assert len(found) == len(samples)
        return found

    def counts(self):
        """What must never fall."""
        return {key: value for key, value in self.metrics().items() if key[0].endswith(("_total", "_bucket", "_count"))}


def started(folder, **settings):
    return running(folder, 0, Processes, **settings)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with started(tmp_path_factory.mktemp("processes")) as process:
        until(process.all_ready, WAIT_SECONDS)
        yield process


def assert_right(reply, *texts):
    assert reply.status_code == 200, reply.text
    for each, text in zip(reply.json()["data"], texts, strict=True):
        assert np.allclose(each["embedding"], expected_vector(text), atol=1e-6), text


def assert_clean(reply):
    """A refusal by the contract."""
    assert reply.status_code == 503, reply.text
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json()["error"]["code"] in {"engine_unavailable", "model_loading"}


@contextmanager
def both_fronts(gateway):
    """A client with a connection to each front, by the front's pid; each has answered once."""
    clients = {}
    with ExitStack() as opened:
        while len(clients) < 2:
            client = opened.enter_context(httpx.Client(timeout=30))
            client.get(f"{gateway.origin}/livez")
            port = client._transport._pool.connections[0]._connection._network_stream.get_extra_info("socket").getsockname()[1]
            if clients.setdefault(front_of(gateway, port), client) is not client:
                client.close()
        yield clients


def front_of(gateway, port):
    """The front that has the connection from this port, as the kernel tells it."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    here = int(gateway.origin.rpartition(":")[2])
    inode = next(row[9] for row in rows if row[1].endswith(f":{here:04X}") and row[2].endswith(f":{port:04X}"))
    for name in ("front-0", "front-1"):
        for descriptor in Path(f"/proc/{gateway.pids(name)[-1]}/fd").iterdir():
            if str(descriptor.readlink()) == f"socket:[{inode}]":
                return name
    raise LookupError(port)


def test_two_connections_are_one_at_each_front_and_give_the_same_vectors(gateway):
    with both_fronts(gateway) as clients:
        for client in clients.values():
            assert_right(gateway.embed("one text", "another", client=client), "one text", "another")


def test_a_killed_front_costs_its_own_connections_and_is_back(gateway):
    with both_fronts(gateway) as clients:
        before = gateway.kill_one("front-0")
        assert_right(gateway.embed("while one is gone", client=clients["front-1"]), "while one is gone")
        assert_right(gateway.embed("anew"), "anew")  # a new connection meets the other front, or waits for the next one
        gateway.wait_back("front-0", before)
        assert clients["front-1"]._transport._pool.connections[0].is_available()
    with both_fronts(gateway) as clients:
        assert_right(gateway.embed("back", client=clients["front-0"]), "back")


def test_while_the_engine_is_gone_all_is_refused_at_once_and_it_is_back(gateway):
    with both_fronts(gateway) as clients:
        before = gateway.kill_one("engine")
        replies = []
        while len(gateway.ready_pids("engine")) < 2 or gateway.ready_pids("engine")[-1] == before:
            for client in clients.values():
                began = time.monotonic()
                replies.append(gateway.embed("meanwhile", client=client))
                if replies[-1].status_code != 200:
                    assert_clean(replies[-1])
                assert time.monotonic() - began < 10  # never as long as a hanging one
            ready = httpx.get(f"{gateway.origin}/readyz", timeout=30)
            assert ready.status_code in {200, 503}
        assert any(reply.status_code == 503 for reply in replies)
        until(lambda: httpx.get(f"{gateway.origin}/readyz").status_code == 200, WAIT_SECONDS)
        for client in clients.values():
            until(lambda client=client: gateway.embed("again", client=client).status_code == 200, WAIT_SECONDS)


def test_no_count_falls_and_each_series_is_told_once_while_processes_die(gateway):
    seen = gateway.counts()
    for name in ("front-0", "engine", "front-1"):
        for number in range(4):
            assert_right(gateway.embed(f"{name} {number}"), f"{name} {number}")
        told = gateway.counts()
        key = ("gateway_requests_total", ("model", MODEL), ("outcome", "ok"))
        assert told[key] == seen[key] + 4
        before = gateway.kill_one(name)
        gateway.wait_back(name, before)
        until(lambda: httpx.get(f"{gateway.origin}/readyz").status_code == 200, WAIT_SECONDS)
        seen = gateway.counts()
        # What is counted in the last second before a kill may be lost, but nothing that a scrape has shown.
        assert {key: value for key, value in told.items() if seen.get(key, 0) < value} == {}
    assert gateway.metrics()["gateway_processes", ("role", "front")] == 2


def test_requests_of_both_fronts_share_the_cache_and_their_counts(gateway):
    before = gateway.metrics()
    with both_fronts(gateway) as clients:
        for client in clients.values():
            assert_right(gateway.embed("shared by both", client=client), "shared by both")
    after = gateway.metrics()

    def more(name, **labels):
        key = (name, *sorted({"model": MODEL, **labels}.items()))
        return after[key] - before.get(key, 0)

    assert (more("gateway_cache_lookups_total", result="miss"), more("gateway_cache_lookups_total", result="hit")) == (1, 1)
    assert more("gateway_requests_total", outcome="ok") == 2


async def test_connections_spread_over_the_fronts(gateway):
    streams = [await asyncio.open_connection(*gateway.origin.removeprefix("http://").split(":")) for _ in range(16)]
    try:
        for reader, writer in streams:
            writer.write(b"GET /livez HTTP/1.1\r\nhost: g\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        found = Counter(front_of(gateway, writer.get_extra_info("sockname")[1]) for _, writer in streams)
        assert min(found["front-0"], found["front-1"]) >= 7, found  # 8, unless one of an earlier test's ends meanwhile
    finally:
        for _, writer in streams:
            writer.close()


def test_hang_up_reloads_in_all_processes_a_wrong_file_changes_nothing_and_sigterm_drains_them(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text("[server]\nmax_body_bytes = 1000000\nwatch_config = false\n")
    with started(tmp_path, GATEWAY_CONFIG=str(file), GATEWAY__SERVER__DRAIN_DELAY_SECONDS="1") as gateway:
        stop_after_reload(gateway, file)


def stop_after_reload(gateway, file):
    with both_fronts(gateway) as clients:
        text = "word " * 100

        def statuses():
            return {gateway.embed(text, client=client).status_code for client in clients.values()}

        assert statuses() == {200}
        file.write_text("[server]\nmax_body_bytes = 300\nwatch_config = false\n")
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: statuses() == {413}, WAIT_SECONDS)
        file.write_text("[server]\nkeep_alive_seconds = 3\n")
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: "configuration_refused" in gateway.events(), WAIT_SECONDS)
        assert "server.keep_alive_seconds" in gateway.log
        for name in NAMES:  # those that are started anew have the configuration that was accepted last, not the file
            gateway.wait_back(name, gateway.kill_one(name))
        until(lambda: {gateway.embed(text).status_code for _ in range(4)} == {413}, WAIT_SECONDS)
    with both_fronts(gateway) as clients:  # SIGTERM: both fronts say so, then all is gone
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: "leaving" in gateway.events(), WAIT_SECONDS)
        until(
            lambda: all(c.get(f"{gateway.origin}/readyz").json() == {"status": "draining"} for c in clients.values()), WAIT_SECONDS
        )
        assert gateway.process.wait(WAIT_SECONDS) == 0
        assert all(is_gone(pid) for name in NAMES for pid in gateway.pids(name))
        assert gateway.events().count("process_died") == len(NAMES)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"GATEWAY__MODELS": '[{"name": "m", "source": "/no/such/folder"}]'},
            "gateway: the model folder /no/such/folder does not exist",
        ),
        ({"GATEWAY__SERVER__HOST": "192.0.2.1"}, "gateway: cannot listen on 192.0.2.1"),
    ],
)
def test_a_start_that_fails_ends_with_one_line_and_the_code_of_one_process(tmp_path, settings, words):
    bare = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
    several = {"GATEWAY_DATA_DIR": str(tmp_path), "GATEWAY__SERVER__PORT": "0", "GATEWAY__SERVER__WORKERS": "2"}
    command = [sys.executable, "-m", "gateway", "serve"]
    done = subprocess.run(command, env={**bare, **several, **settings}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert [line.startswith(words) for line in done.stderr.splitlines() if not line.startswith("{")] == [True], done.stderr


def test_the_bound_of_connections_holds_over_both_fronts_and_without_their_supervisor_they_end(tmp_path):
    path, metrics_port = tmp_path / "socket", free_port()
    settings = {"MAX_CONNECTIONS": "4", "HOST": f'["127.0.0.1", "unix:{path}"]'}
    environment = {f"GATEWAY__SERVER__{name}": value for name, value in settings.items()}
    with started(tmp_path, **environment, GATEWAY__METRICS__PORT=str(metrics_port)) as gateway:
        host, _, port = gateway.origin.removeprefix("http://").partition(":")
        opened = []
        for number in range(10):  # each further one takes the place of the one that has waited longest at some front
            connection = socket.create_connection((host, int(port)), timeout=30)
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: g\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200"), number
            opened.append(connection)
        closed = [connection for connection in opened if is_closed(connection)]
        assert len(closed) >= 6
        shown = gateway.metrics(f"http://127.0.0.1:{metrics_port}")
        assert shown["gateway_open_connections", ("state", "active")] + shown["gateway_open_connections", ("state", "waiting")] <= 4
        assert shown["gateway_max_connections",] == 4
        for connection in opened:
            connection.close()
        until(lambda: open_connections(gateway, metrics_port) == 0, WAIT_SECONDS)
        newcomers_are_served_beside_busy_ones(host, int(port))
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            reply = client.post("http://gateway/v1/embeddings", json={"model": MODEL, "input": ["by a Unix socket"]})
        assert_right(reply, "by a Unix socket")
        before = gateway.kill_one("engine")  # the metrics' own port stays open, and is served again
        gateway.wait_back("engine", before)
        assert gateway.metrics(f"http://127.0.0.1:{metrics_port}")["gateway_process_restarts_total", ("role", "engine")] == 1
        pids = [gateway.pids(name)[-1] for name in NAMES]
        gateway.kill()
        began = time.monotonic()
        until(lambda: all(map(is_gone, pids)), WAIT_SECONDS)
        assert time.monotonic() - began < 10  # two seconds, and what a busy machine adds
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))


def open_connections(gateway, metrics_port):
    shown = gateway.metrics(f"http://127.0.0.1:{metrics_port}")
    return sum(shown["gateway_open_connections", ("state", state)] for state in ("active", "waiting"))


def newcomers_are_served_beside_busy_ones(host, port):
    """Three of four connections are busy, and the front of one more may have no waiting one: then the other makes room."""
    head = b"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\ncontent-length: 100\r\n\r\n"
    busy = [socket.create_connection((host, port), timeout=30) for _ in range(3)]
    for connection in busy:
        connection.sendall(head)
    newcomers = []
    for _ in range(12):
        newcomers.append(socket.create_connection((host, port), timeout=30))
        newcomers[-1].sendall(b"GET /v1/none HTTP/1.1\r\nhost: g\r\n\r\n")
        assert newcomers[-1].recv(1000).startswith(b"HTTP/1.1 404")
    assert [is_closed(connection) for connection in newcomers] == [True] * 11 + [False]
    assert not any(is_closed(connection) for connection in busy)
    newcomers[-1].sendall(head)  # now all four are busy
    refused = socket.create_connection((host, port), timeout=30)
    refused.sendall(b"GET /v1/none HTTP/1.1\r\nhost: g\r\n\r\n")
    assert refused.recv(1000).startswith(b"HTTP/1.1 503")
    for connection in (*busy, *newcomers, refused):
        connection.close()


def is_closed(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    finally:
        connection.setblocking(True)


def test_healthcheck_and_the_list_of_processes_tell_the_truth(gateway):
    gateway.environment["GATEWAY__SERVER__PORT"] = gateway.origin.rpartition(":")[2]
    assert gateway.run("healthcheck") == "/readyz: ready (200)\n"
    assert gateway.run("healthcheck", "--live") == "/livez: ok (200)\n"
    names = {Path(f"/proc/{gateway.pids(name)[-1]}/comm").read_text().strip() for name in NAMES}
    assert names == {"gateway-engine", "gateway-front-0", "gateway-front-1"}


def test_the_log_of_a_process_that_dies_says_how(gateway):
    died = [json.loads(line) for line in gateway.log.splitlines() if '"event":"process_died"' in line]
    assert died
    assert all(line["signal"] == "SIGKILL" and line["restart_in_seconds"] == 0 for line in died)


def test_a_second_signal_ends_it_at_once_whatever_is_under_way_at_either_front(gateway):
    """The last test of this gateway, whose fronts would wait for these requests for half a minute."""
    port = int(gateway.origin.rpartition(":")[2])
    with ExitStack() as opened:
        connections = [opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(6)]
        for connection in connections:  # at least one at each front: accepting is balanced
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: g\r\ncontent-length: 100\r\n\r\n{")
        until(lambda: gateway.metrics()["gateway_open_connections", ("state", "active")] >= 7, WAIT_SECONDS)  # and its own
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: gateway.events().count("leaving") >= 2, WAIT_SECONDS)
        assert gateway.process.poll() is None
        began = time.monotonic()
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(WAIT_SECONDS) == 0
        assert time.monotonic() - began < 20  # of their 35 seconds; a busy child is killed after two
        assert all(is_gone(pid) for name in NAMES for pid in gateway.pids(name))
