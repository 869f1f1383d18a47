"""A gateway behind several fronts, each on a real socket, in one thread: real links, and no process forked."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.app import Gateway
from gateway.processes.fronts import Fronts
from gateway.processes.totals import Totals
from gateway.testing.front_process import RunningFront
from gateway.testing.gateway_thread import WAIT_SECONDS


class FrontsThread:
    """`origins` are the fronts' addresses."""

    def __init__(self, gateway: Gateway, totals: Totals) -> None:
        self.gateway = gateway
        self.totals = totals
        self.origins: list[str] = []
        self.ready = threading.Event()
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self.live, name="fronts")

    def live(self) -> None:
        try:
            asyncio.run(self.run())
        except BaseException as error:  # noqa: BLE001 - asserted on in the test's own thread
            self.errors.append(error)
        finally:
            self.ready.set()

    async def run(self) -> None:
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        gateway = self.gateway
        fronts = Fronts(gateway, on_commit=lambda _: None)
        gateway.swap.followers = fronts
        totals, num_fronts = self.totals, self.totals.num_fronts
        running = [
            RunningFront(gateway.config, number=number, num_fronts=num_fronts, totals=totals) for number in range(num_fronts)
        ]
        serving = [asyncio.create_task(each.front.serve()) for each in running]
        watching = [asyncio.create_task(fronts.watch()), asyncio.create_task(gateway.loader.watch(lambda: gateway.catalog.models))]
        try:
            await gateway.start()
            await gateway.load()
            for number, each in enumerate(running):
                ours, theirs = socket.socketpair()
                await fronts.connect(number, ours)
                each.give_link(theirs)
            while not all(each.can_serve for each in running):
                await asyncio.sleep(0.01)
            self.origins = [each.origin for each in running]
            self.ready.set()
            await self.over.wait()
        finally:
            for each in watching:
                each.cancel()
            for each in running:
                await each.stop()
            await asyncio.gather(*serving)
            for each in running:
                each.close()
            fronts.close()
            await asyncio.sleep(0)
            await gateway.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join(WAIT_SECONDS)


@contextmanager
def served_by_fronts(gateway: Gateway, totals: Totals | None = None) -> Iterator[list[str]]:
    """Yields the fronts' origins once all can serve: two, or as many as `totals` is of."""
    fronts = FrontsThread(gateway, totals or Totals(2))
    fronts.thread.start()
    assert fronts.ready.wait(WAIT_SECONDS)
    assert not fronts.errors, fronts.errors
    try:
        yield fronts.origins
    finally:
        fronts.stop()
        assert not fronts.thread.is_alive()
        assert not fronts.errors, fronts.errors
