"""A closed-loop load: each client sends its next request once the previous one is answered."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from gateway.backoff import Backoff
from gateway.cli.load.measured_window import MeasurementWindow
from gateway.cli.load.peer import BenchRequest, BenchTarget
from gateway.cli.load.tally import BenchCounts
from gateway.cli.load.texts import Texts

TICK_SECONDS = 0.2
BROKEN = Backoff(first_seconds=0.1, max_seconds=1.0)  # between requests to a server that does not answer


class Clients:
    """All clients of one run. `tally` counts the replies that came while `window` was open."""

    def __init__(
        self, peer: BenchTarget, request: BenchRequest, texts: Texts, *, num_inputs: int, window: MeasurementWindow
    ) -> None:
        self.peer = peer
        self.request = request
        self.texts = texts
        self.num_inputs = num_inputs
        self.window = window
        self.tally = BenchCounts()
        self.cpu_share = 0.0  # this process's CPU time, as a share of one core
        self.is_over = asyncio.Event()

    def next_request(self) -> BenchRequest:
        return msgspec.structs.replace(self.request, input=self.texts.take(self.num_inputs))

    async def run(self, show: Callable[[], None]) -> None:
        """Runs until the window closes, or until it is cancelled; the counts remain valid then. Calls `show` every tick.

        Requests in flight at the end are cancelled and not counted.
        """
        began, cpu_began = time.perf_counter(), time.process_time()
        self.window.start(began)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.client(number)) for number in range(self.window.num_clients)]
                while not self.is_over.is_set():
                    show()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self.is_over.wait(), TICK_SECONDS)
                for task in tasks:
                    task.cancel()
        finally:
            now = time.perf_counter()
            self.window.close(now)
            self.cpu_share = (time.process_time() - cpu_began) / (now - began)

    async def client(self, number: int) -> None:
        num_broken = 0
        while not self.is_over.is_set():
            answer = await self.peer.embed(self.next_request())
            if self.window.takes(number, time.perf_counter()):
                self.tally.add(answer, num_inputs=self.num_inputs)
            num_broken = num_broken + 1 if answer.is_broken else 0
            if self.window.is_closed:
                self.is_over.set()
            elif num_broken:
                await asyncio.sleep(BROKEN.pause_seconds(num_broken))
