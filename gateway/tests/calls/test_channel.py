"""Two ends of a channel: calls, answers, cancellation, the end, and frames cut anywhere."""

import asyncio
import gc
import socket

import pytest
import uvloop

from gateway.calls.channel import Channel, ChannelClosed
from gateway.calls.engine_message import Done, InfoCall, ModelInfo, from_engine, from_front
from gateway.calls.framing import PREFIX
from gateway.calls.message import CancelCall, encode


class Ends:
    """A front's end and an engine's, connected. `heard` has what reached the engine's without being an answer."""

    async def __aenter__(self):
        ours, theirs = socket.socketpair()
        self.heard, self.lost = asyncio.Queue(), []
        self.front = Channel(from_engine, on_message=lambda *_: None, on_lost=lambda: self.lost.append("front"))
        self.engine = Channel(from_front, on_message=self.on_message, on_lost=lambda: self.lost.append("engine"), calls_first=False)
        await self.front.open(ours)
        await self.engine.open(theirs)
        return self

    def on_message(self, message, payload):
        self.heard.put_nowait((message, payload))

    async def __aexit__(self, *_):
        self.front.close()
        self.engine.close()
        await asyncio.sleep(0)


async def call(channel, **fields):
    number = channel.begin_call()
    channel.send(InfoCall(number=number, generation=1, model=2), **fields)
    return await channel.answer_to(number)


async def test_a_call_is_answered_with_its_payload():
    async with Ends() as ends:
        asked = asyncio.create_task(call(ends.front, payload=b"abc"))
        message, payload = await ends.heard.get()
        assert (message, payload) == (InfoCall(number=1, generation=1, model=2), b"abc")
        ends.engine.send(ModelInfo(number=1), memoryview(b"rows"))
        assert await asked == (ModelInfo(number=1), b"rows")
        assert not ends.front.waiting


async def test_what_is_not_urgent_is_sent_in_order_with_what_is_or_by_itself_soon():
    async with Ends() as ends:
        ends.front.send(CancelCall(number=8), is_urgent=False)
        await asyncio.sleep(0)
        assert ends.front.parts
        ends.front.send(CancelCall(number=9))
        assert [(await ends.heard.get())[0].number for _ in range(2)] == [8, 9]
        assert ends.front.timer is None
        ends.front.send(CancelCall(number=10), is_urgent=False)
        assert (await ends.heard.get())[0].number == 10
        ends.front.send(CancelCall(number=11), is_urgent=False)
        ends.front.close()  # after what is queued
        assert (await ends.heard.get())[0].number == 11


async def test_calls_of_both_ends_do_not_meet():
    async with Ends() as ends:
        asked = asyncio.create_task(call(ends.front))
        await ends.heard.get()
        own = ends.engine.begin_call()
        ends.front.send(Done(number=own))
        assert await ends.engine.answer_to(own) == (Done(number=own), b"")
        ends.engine.send(ModelInfo(number=1))
        await asked


async def test_a_cancelled_call_is_cancelled_at_the_other_end():
    async with Ends() as ends:
        asked = asyncio.create_task(call(ends.front))
        await ends.heard.get()
        asked.cancel()
        assert (await ends.heard.get())[0] == CancelCall(number=1)
        ends.engine.send(ModelInfo(number=1))  # too late, and no harm
        again = asyncio.create_task(call(ends.front))
        await ends.heard.get()
        ends.engine.send(ModelInfo(number=3))
        assert (await again)[0] == ModelInfo(number=3)


async def test_the_end_of_one_process_fails_what_waits_and_what_is_asked_later():
    async with Ends() as ends:
        asked = asyncio.create_task(call(ends.front))
        await ends.heard.get()
        ends.engine.close()
        with pytest.raises(ChannelClosed):
            await asked
        assert ends.lost[0] in {"front", "engine"}
        with pytest.raises(ChannelClosed):
            ends.front.begin_call()


@pytest.mark.parametrize("size", [1, 3, 7, 64])
async def test_frames_may_be_cut_anywhere(size):
    async with Ends() as ends:
        header, payload = encode(InfoCall(number=1, generation=5, model=6)), b"x" * 50
        frames = (PREFIX.pack(len(header), len(payload)) + header + payload) * 4
        for start in range(0, len(frames), size):
            ends.engine.data_received(frames[start : start + size])
        assert [ends.heard.get_nowait() for _ in range(4)] == [(InfoCall(number=1, generation=5, model=6), payload)] * 4


@pytest.mark.parametrize("junk", [b"\xff" * 64, PREFIX.pack(3, 0) + b"\xc1\xc1\xc1"], ids=["too large", "no message"])
async def test_what_is_no_message_closes_the_channel(junk, caplog):
    async with Ends() as ends:
        ends.engine.data_received(junk)
        assert ends.engine.is_closed


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_what_is_sent_while_the_other_end_dies_leaves_no_error_behind(loop_factory):
    async def main():
        errors = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["message"]))
        async with Ends() as ends:
            ends.front.begin_call()  # whose caller has left
            ends.front.send(Done(number=1))
            ends.front.transport.abort()
            while len(ends.lost) < 2:
                ends.engine.send(Done(number=2))
                await asyncio.sleep(0)
            ends.front.waiting.clear()
            gc.collect()
        assert errors == []

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
