"""What callers see while the network between hosts fails: the short form of `make chaos-network`, and what it is judged by."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos_network.case import STREAMS
from benchmarks.chaos_network.forwarder import Line
from benchmarks.chaos_network.load import Outcome, Stream
from benchmarks.chaos_network.namespace import FOLDER, PREFIX
from benchmarks.chaos_network.row import Row, back_seconds, broken_promises
from benchmarks.chaos_network.scene import DEADLINE_SECONDS
from benchmarks.chaos_network.support import missing
from gateway.tests.processes.conftest import until

ROOT = Path(__file__).parents[3]
STREAM = Stream("gateway1", "remote")


@pytest.fixture(scope="module")
def able():
    """Where the kernel or its owner does not let us, there is nothing to test; what CI could have and has not is a failure."""
    found = missing()
    if found is not None:
        must_run = os.environ.get("CI") == "true" and found.is_out_of_order
        pytest.fail(found.reason) if must_run else pytest.skip(found.reason)


def started(*options):
    command = [sys.executable, "-m", "benchmarks.chaos_network", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_callers_and_operators_see_what_is_promised_while_the_network_fails(able):
    with started("--short") as process:
        told, _ = process.communicate()
    assert process.returncode == 0, told


def made_by(pid):
    return list(FOLDER.glob(f"{PREFIX}-{pid}-*"))


def test_nothing_is_left_of_it_after_a_kill(able):
    with started("--short") as process:
        until(lambda: made_by(process.pid), 30)
        process.send_signal(signal.SIGKILL)
    until(lambda: not made_by(process.pid), 30)


def outcome(began, seconds, kind="200", *, is_wrong=False, stream=STREAM):
    return Outcome(stream, began, seconds, kind, is_wrong)


def test_service_is_back_when_replies_are_good_and_no_request_that_begins_fails():
    streams = frozenset({STREAM})
    assert back_seconds([outcome(10.0, 0.5)], streams, returned=10.0) == 0.5
    assert back_seconds([outcome(8.0, 4.0, "503"), outcome(11.0, 0.0, "503"), outcome(12.0, 0.5)], streams, returned=10.0) == 2.5
    assert back_seconds([outcome(10.5, 0.5), outcome(13.0, 0.1, "503"), outcome(14.0, 0.1)], streams, returned=10.0) == 3.0
    assert back_seconds([outcome(9.0, 0.5), outcome(11.0, 0.5, "503")], streams, returned=10.0) is None
    assert back_seconds([outcome(10.0, 0.5)], STREAMS, returned=10.0) is None


def row(**changed):
    return Row("a, b", "partition", {}, {}, longest_seconds=0.1, back_seconds=1.0, **changed)


@pytest.mark.parametrize(
    ("affected", "others", "of_row"),
    [
        ([outcome(0, 0.1, "502 upstream_error")], [], row()),
        ([outcome(0, 0.1, "503 timeout", is_wrong=True)], [], row()),
        ([], [outcome(0, 0.1, "503 timeout")], row()),
        ([outcome(0, DEADLINE_SECONDS + 3)], [], row()),
        ([], [], row(is_telling=True, told_in_log=1.0)),
        ([], [], row(is_telling=True, told_in_log=1.0, told_in_metrics=10.5)),
        ([], [], row(longest_probe_seconds=float("inf"))),
    ],
)
def test_a_broken_promise_is_said(affected, others, of_row):
    may_see = frozenset({"503 timeout"})
    assert len(list(broken_promises(of_row, affected, others, may_see, is_client_side=False))) == 1


def test_what_may_be_seen_breaks_no_promise():
    seen = [outcome(0, 0.1, "503 timeout"), outcome(0, 0.1)]
    told = row(is_telling=True, told_in_log=1.0, told_in_metrics=9.0)
    assert not list(broken_promises(told, seen, [outcome(0, 0.1)], frozenset({"503 timeout"}), is_client_side=False))


def test_the_forwarder_delays_every_packet_and_lets_some_overtake_others():
    line = Line(0.2, 0.05, random.Random(1))
    for number in range(100):
        line.add(bytes([number]), now=0.001 * number)
    assert not list(line.due(0.199))
    assert line.wait_seconds(0.1) == pytest.approx(0.1, abs=0.05)
    came = [packet[0] for packet in line.due(1.0)]
    assert sorted(came) == list(range(100)) != came
    assert line.wait_seconds(1.0) is None
