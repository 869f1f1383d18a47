"""The end of works of one batch."""

import asyncio

import numpy as np

from gateway.engine.encoder import Window
from gateway.engine.work import Work, end_finished


class Broken:
    """A Completion with a defect."""

    def done(self):
        return False

    def set_result(self, _):
        raise RuntimeError("a defect")


def finished(done):
    work = Work("a", [Window([1])], np.zeros((1, 2), dtype=np.float32), asyncio.get_running_loop(), done)
    work.deliver([0], np.ones((1, 2), dtype=np.float32))
    return work


async def test_a_completion_with_a_defect_leaves_the_others_theirs():
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
    futures = [loop.create_future() for _ in range(2)]
    await asyncio.to_thread(end_finished, [finished(futures[0]), finished(Broken()), finished(futures[1])])
    async with asyncio.timeout(5):
        await asyncio.gather(*futures)
    assert told == ["a defect"]
