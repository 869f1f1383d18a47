"""The supervisor with small children (small_gateway.py), as real processes: restarts, signals, ends, sums."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from gateway.processes.child_process import MAX_FAILURES, ChildProcess, ExitStatus
from gateway.testing.programs import free_port
from gateway.tests.processes.conftest import until

WAIT_SECONDS = 30


class SmallGateway:
    def __init__(self, folder, **environment):
        self.folder = folder
        self.metrics_port = free_port()
        bare = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY")}
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway.tests.processes.small_gateway"],
                env={
                    **bare,
                    "GATEWAY_DATA_DIR": str(folder),
                    "GATEWAY__SERVER__PORT": "0",
                    "GATEWAY__METRICS__PORT": str(self.metrics_port),
                    **environment,
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_started(self):
        until(lambda: self.text.count("process_started") >= 3 or self.process.poll() is not None, WAIT_SECONDS)
        assert self.process.poll() is None, self.text
        until(lambda: len(set(self.fronts())) == 2, WAIT_SECONDS)
        return self

    @property
    def text(self):
        return self.output.read_text(encoding="utf-8")

    @property
    def address(self):
        return "127.0.0.1", int(re.findall(r"urls http://127.0.0.1:(\d+)", self.text)[0])

    def pids(self, name):
        return [int(pid) for pid in re.findall(rf'"process":"{name}","pid":(\d+)', self.text)]

    def ask(self, command=""):
        """The answer of some front: pid, engine's pid, keep_alive_seconds. Empty if the connection ended without one."""
        with socket.create_connection(self.address, timeout=WAIT_SECONDS) as connection:
            connection.sendall(f"{command}\n".encode())
            try:
                return connection.makefile().readline().split()
            except ConnectionResetError:
                return []

    def fronts(self):
        """The pids of the fronts that answered some questions, with the engine that each has."""
        return [tuple(self.ask()[:2]) for _ in range(12)]

    def hang(self):
        connection = socket.create_connection(self.address, timeout=WAIT_SECONDS)
        connection.sendall(b"hang\n")
        assert connection.recv(5) == b"held\n"
        return connection

    def shown(self):
        with socket.create_connection(("127.0.0.1", self.metrics_port), timeout=WAIT_SECONDS) as connection:
            return msgspec.json.decode(connection.makefile("rb").read())

    def ended(self):
        return self.process.wait(WAIT_SECONDS)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def small(tmp_path):
    started = []

    def start(**environment):
        started.append(SmallGateway(tmp_path, **environment))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    gateway = SmallGateway(tmp_path_factory.mktemp("small"))
    try:
        yield gateway.wait_started()
    finally:
        gateway.kill()


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
        return stat.rpartition(")")[2].split()[0] == "Z"  # whose parent is gone waits to be reaped by another
    except OSError:
        return True


def is_pending(pid, signal_number):
    """Whether a process that is stopped will get this signal."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.findall(r"ShdPnd:\s*(\w+)", status)[0], 16) >> (signal_number - 1) & 1


def test_a_front_that_is_killed_comes_back_with_a_link_to_the_same_engine(shared):
    [engine] = {engine for _, engine in shared.fronts()}
    before = shared.pids("front-0")[-1]
    os.kill(before, signal.SIGKILL)
    until(lambda: shared.pids("front-0")[-1] != before, WAIT_SECONDS)
    until(lambda: set(shared.fronts()) == {(str(shared.pids(f"front-{n}")[-1]), engine) for n in range(2)}, WAIT_SECONDS)


def test_an_engine_that_is_killed_comes_back_with_links_to_all_fronts(shared):
    before = shared.pids("engine")[-1]
    fronts = {front for front, _ in shared.fronts()}
    os.kill(before, signal.SIGKILL)
    until(lambda: shared.pids("engine")[-1] != before, WAIT_SECONDS)
    now = str(shared.pids("engine")[-1])
    until(lambda: set(shared.fronts()) == {(front, now) for front in fronts}, WAIT_SECONDS)


def test_no_count_falls_when_a_process_is_killed(shared):
    """Asks are counted by the fronts, 100 by each engine, restarts by the supervisor."""
    before = shared.shown()
    [shared.ask() for _ in range(5)]
    seen = shared.shown()
    assert seen["asked"] == before["asked"] + 5
    assert seen["processes"] == {"engine": 1, "front": 2}
    for name in ("front-0", "front-1", "engine"):
        pid = shared.pids(name)[-1]
        os.kill(pid, signal.SIGKILL)
        until(lambda name=name, pid=pid: shared.pids(name)[-1] != pid, WAIT_SECONDS)
        after = shared.shown()
        assert after["asked"] >= seen["asked"]
        assert after["cpu"] >= seen["cpu"]
        assert after["restarts"] == seen["restarts"] + 1
        assert after["started"] == seen["started"]
        seen = after


def test_a_restarted_child_gets_the_configuration_that_was_accepted_last(shared):
    os.kill(shared.process.pid, signal.SIGHUP)
    until(lambda: "reloaded" in shared.text, WAIT_SECONDS)
    for number in range(2):
        before = shared.pids(f"front-{number}")[-1]
        os.kill(before, signal.SIGKILL)
        until(lambda number=number, before=before: shared.pids(f"front-{number}")[-1] != before, WAIT_SECONDS)
    until(lambda: {shared.ask()[2] for _ in range(10)} == {"7.0"}, WAIT_SECONDS)


def test_a_reload_that_is_wanted_while_the_engine_is_gone_is_the_next_ones(small):
    gateway = small().wait_started()
    gateway.process.send_signal(signal.SIGSTOP)
    os.kill(gateway.pids("engine")[-1], signal.SIGKILL)
    until(lambda: is_pending(gateway.process.pid, signal.SIGCHLD), WAIT_SECONDS)
    gateway.process.send_signal(signal.SIGHUP)
    gateway.process.send_signal(signal.SIGCONT)
    until(lambda: "reloaded" in gateway.text, WAIT_SECONDS)


def test_the_signals_of_a_terminal_do_not_end_the_children(small):
    """Ctrl-C sends SIGINT to all processes of a terminal; systemd sends SIGTERM to all of a unit. Each is one signal to stop."""
    gateway = small().wait_started()
    with gateway.hang() as first, gateway.hang() as second:
        os.killpg(gateway.process.pid, signal.SIGINT)
        assert [connection.makefile().readline() for connection in (first, second)] == ["drained\n", "drained\n"]
    assert gateway.ended() == 0
    assert "leaving True" in gateway.text
    assert gateway.text.index("leaving") < gateway.text.index("engine stops False")


def test_fronts_drain_before_the_engine_ends_and_all_is_gone(small):
    gateway = small(SMALL_DRAIN="0.5").wait_started()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.ended() == 0
    assert "leaving False" in gateway.text
    assert "engine stops False" in gateway.text
    assert all(is_gone(pid) for name in ("engine", "front-0", "front-1") for pid in gateway.pids(name))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(gateway.address)


def test_a_second_signal_ends_it_at_once(small):
    gateway = small(SMALL_DRAIN="600").wait_started()
    gateway.process.send_signal(signal.SIGTERM)
    until(lambda: "leaving" in gateway.text, WAIT_SECONDS)
    started = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.ended() == 0
    assert time.monotonic() - started < 20  # of 600 seconds' patience; a busy child is killed after two
    assert all(is_gone(pid) for name in ("engine", "front-0", "front-1") for pid in gateway.pids(name))


def test_without_its_supervisor_every_process_ends(small):
    gateway = small().wait_started()
    pids = [gateway.pids(name)[-1] for name in ("engine", "front-0", "front-1")]
    with socket.create_connection(gateway.address) as busy:
        busy.sendall(b"spin\n")  # its event loop does not run: it cannot notice by itself
        gateway.process.kill()
        gateway.process.wait()
        until(lambda: all(map(is_gone, pids)), WAIT_SECONDS)
    assert "orphan engine" in gateway.text


def test_a_first_start_that_fails_ends_everything_with_its_message_and_code(small):
    gateway = small(SMALL_ENGINE="refuse")
    assert gateway.ended() == 2
    assert "gateway: the model is missing\n" in gateway.text
    assert all(is_gone(pid) for name in ("engine", "front-0", "front-1") for pid in gateway.pids(name))


def test_a_first_start_that_dies_ends_with_its_code(small):
    assert small(SMALL_ENGINE="die").ended() == 7


class TestChildProcess:
    def test_a_first_death_is_mended_at_once_and_further_ones_later_until_it_is_given_up(self):
        child = ChildProcess("front", 3)
        pauses = []
        for _ in range(MAX_FAILURES):
            assert not child.is_given_up
            child.pid = 1
            child.on_end(ExitStatus(code=1), now=100.0)
            pauses.append(child.start_at - 100.0)
        assert pauses[0] == 0.0
        assert all(0.25 <= pause <= 15.0 for pause in pauses[1:])
        assert child.is_given_up

    @pytest.mark.parametrize(
        ("served_seconds", "status", "num_failures"),
        [
            (0.1, ExitStatus(signal=signal.SIGSEGV), 1),
            (6.0, ExitStatus(signal=signal.SIGSEGV), 0),
            (0.1, ExitStatus(signal=signal.SIGKILL), 0),
            (None, ExitStatus(signal=signal.SIGKILL), 1),
        ],
    )
    def test_what_counts_as_a_death_in_a_row(self, served_seconds, status, num_failures):
        child = ChildProcess("engine", 0)
        if served_seconds is not None:
            child.on_ready(100.0 - served_seconds)
        child.on_end(status, now=100.0)
        assert (child.num_failures, child.start_at) == (num_failures, 100.0)
