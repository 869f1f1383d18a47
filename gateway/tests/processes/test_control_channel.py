"""The messages between the supervisor and a child, on a real socket pair and both event loops."""

import asyncio
import select
import socket

import pytest
import uvloop

from gateway.config import Config
from gateway.metrics import Metrics
from gateway.processes import control
from gateway.processes.control_channel import ControlChannel, Link
from gateway.processes.control_socket import ControlSocket, PeerGone

LOOPS = pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


class Supervisor:
    """The supervisor's end, for a test that plays it."""

    def __init__(self, end):
        self.socket = ControlSocket(end, control.from_child)

    def send(self, *messages, beside=None):
        for message in messages:
            self.socket.send(control.encode(message), beside)

    async def receive(self):
        while not (messages := self.socket.receive()):
            await asyncio.sleep(0)
        return messages


@pytest.fixture
def ends():
    pair = socket.socketpair()
    yield pair
    for end in pair:
        end.close()


def run(main, loop_factory):
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


@LOOPS
def test_events_come_in_order_and_a_link_has_its_own_socket(ends, loop_factory):
    async def main():
        supervisor = Supervisor(ends[0])
        pairs = [socket.socketpair() for _ in range(2)]
        for number, (ours, theirs) in enumerate(pairs):
            ours.sendall(b"%d" % number)
            supervisor.send(control.LinkHeader(number), beside=theirs)
        supervisor.send(
            control.Reload(), control.Leave(skip_delay=True), control.Stop(force=True), control.MakeRoom(0, "192.0.2.1", [0])
        )
        async with ControlChannel(ends[1], snapshot=Metrics().snapshot) as channel:
            events = aiter(channel.events())
            for number in range(2):
                link = await anext(events)
                assert isinstance(link, Link)
                assert (link.number, link.socket.recv(10), link.socket.get_inheritable()) == (number, b"%d" % number, False)
                link.socket.close()
            found = [await anext(events) for _ in range(4)]
            assert found == [
                control.Reload(),
                control.Leave(skip_delay=True),
                control.Stop(force=True),
                control.MakeRoom(0, "192.0.2.1", [0]),
            ]
            ends[0].close()
            assert [event async for event in events] == []
        for ours, _ in pairs:
            ours.close()

    run(main(), loop_factory)


@LOOPS
def test_a_child_says_what_it_serves_and_sends_samples_when_wanted(ends, loop_factory):
    async def main():
        supervisor, metrics = Supervisor(ends[0]), Metrics()
        metrics.access.auth_failures.labels("unknown_key").inc(3)
        async with ControlChannel(ends[1], snapshot=metrics.snapshot) as channel:
            channel.ready()
            channel.accept(Config())
            assert await supervisor.receive() == [control.Ready(), control.Accepted(Config())]
            supervisor.send(control.SamplesWanted())
            [samples] = await supervisor.receive()
        [family] = [family for family in samples.families if family.name == "gateway_auth_failures"]
        assert ("gateway_auth_failures_total", {"reason": "unknown_key"}, 3.0) in family.samples

    run(main(), loop_factory)


def test_a_child_whose_metrics_cannot_be_sent_any_more_ends(ends):
    async def main():
        supervisor = Supervisor(ends[0])
        async with ControlChannel(ends[1], snapshot=lambda: 1 / 0) as channel:
            supervisor.send(control.SamplesWanted())
            async with asyncio.timeout(10):
                assert [event async for event in channel.events()] == []

    run(main(), uvloop.new_event_loop)


@LOOPS
def test_the_sum_is_the_answer_to_its_question(ends, loop_factory):
    async def main():
        supervisor, metrics = Supervisor(ends[0]), Metrics()
        async with ControlChannel(ends[1], snapshot=metrics.snapshot) as channel:
            first, second = asyncio.create_task(channel.sum()), asyncio.create_task(channel.sum())
            await asyncio.sleep(0)
            wanted = await supervisor.receive()
            assert [message.number for message in wanted] == [1, 2]
            supervisor.send(control.Sum(2, []), control.Sum(1, metrics.snapshot()))
            assert (await second, [family.name for family in await first]) == ([], [family.name for family in metrics.snapshot()])
            third = asyncio.create_task(channel.sum())
            await supervisor.receive()
            ends[0].close()
            with pytest.raises(TimeoutError):
                await third

    run(main(), loop_factory)


@LOOPS
def test_a_large_message_waits_until_the_other_end_reads(ends, loop_factory):
    async def main():
        supervisor, metrics = Supervisor(ends[0]), Metrics()
        for number in range(20_000):
            metrics.access.key_tokens.labels(f"key{number}").inc(number)
        async with ControlChannel(ends[1], snapshot=metrics.snapshot) as channel:
            channel.send(control.Samples(metrics.snapshot()))
            channel.ready()
            assert channel.socket.has_unsent
            messages = await supervisor.receive()
            while len(messages) < 2:
                messages += await supervisor.receive()
        assert [type(message) for message in messages] == [control.Samples, control.Ready]

    run(main(), loop_factory)


def test_a_socket_that_is_never_read_is_closed(ends):
    supervisor = Supervisor(ends[0])
    ours, theirs = socket.socketpair()
    supervisor.send(control.LinkHeader(0), beside=theirs)
    assert theirs.fileno() == -1
    ends[1].close()
    assert select.select([ours], [], [], 10)[0]
    assert ours.recv(1) == b""
    with pytest.raises(PeerGone):
        supervisor.send(control.Reload())
    ours.close()
