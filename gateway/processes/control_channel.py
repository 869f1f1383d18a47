"""The child's end of its control socket, on the child's event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from gateway.background import BackgroundTask
from gateway.config import Config
from gateway.metrics.snapshot import MetricFamily
from gateway.processes import control
from gateway.processes.control import Leave, MakeRoom, Reload, RoomMade, Stop
from gateway.processes.control_socket import ControlSocket, PeerGone

# Between two times that samples are sent unasked, which takes a millisecond; a process that is killed loses what it counted since.
PUSH_SECONDS = 1.0
SUM_SECONDS = 3.0  # the supervisor waits shorter for a process that does not answer


@dataclass(frozen=True, slots=True)
class Link:
    """A new socket: for the engine it leads to front `number`, for a front to the engine. It replaces the one before."""

    number: int
    socket: socket.socket


Event = Link | Leave | Stop | Reload | MakeRoom | RoomMade


class ControlChannel:
    """Used on one event loop: `async with ControlChannel(child.control, snapshot=metrics.snapshot) as channel`.

    `snapshot` returns the metrics of this process; it is called on a thread, whenever the supervisor wants them.
    """

    def __init__(self, end: socket.socket, *, snapshot: Callable[[], list[MetricFamily]]) -> None:
        self.socket = ControlSocket(end, control.to_child)
        self.snapshot = snapshot
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue()  # as many as the supervisor sends: a few in a process's life
        self.sums: dict[int, asyncio.Future[list[MetricFamily]]] = {}
        self.number = 0
        self.samples_wanted = asyncio.Event()
        self.background = BackgroundTask("control", self.push, on_death=lambda: self.queue.put_nowait(None))

    async def __aenter__(self) -> "ControlChannel":
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(self.socket.fileno(), self.read)
        self.background.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.loop.remove_reader(self.socket.fileno())
        self.loop.remove_writer(self.socket.fileno())
        await self.background.close()
        self.end_sums()

    async def events(self) -> AsyncIterator[Event]:
        """Yields what the supervisor says. Ends when the supervisor is gone: end too, within `child.ORPHAN_SECONDS`.

        It also ends when samples can be sent no more: a process that is started anew may send them.
        """
        while (event := await self.queue.get()) is not None:
            yield event

    def ready(self) -> None:
        """Says that this process serves."""
        self.send(control.Ready())

    def accept(self, config: Config) -> None:
        """Says which configuration is in effect: of the engine alone, after each reload that was accepted."""
        self.send(control.Accepted(config))

    def ask_for_room(self, front: int, address: str | None) -> None:
        """Asks that another front closes the connection that has waited longest there. The answer is the event RoomMade."""
        self.send(MakeRoom(front, address, [front]))

    def answer_room(self, wanted: MakeRoom, front: int, *, was_made: bool) -> None:
        """Answers the event MakeRoom."""
        self.send(RoomMade(wanted.asking) if was_made else MakeRoom(wanted.asking, wanted.address, [*wanted.tried, front]))

    async def sum(self) -> list[MetricFamily]:
        """The metrics of all processes, summed. Raises TimeoutError if the supervisor does not answer."""
        self.number = number = self.number + 1
        self.sums[number] = asyncio.get_running_loop().create_future()
        try:
            self.send(control.SumWanted(number))
            return await asyncio.wait_for(self.sums[number], SUM_SECONDS)
        finally:
            del self.sums[number]

    async def push(self) -> None:
        """Sends samples when they are wanted, and every PUSH_SECONDS. Collecting takes milliseconds, so it is done on a thread."""
        while True:
            try:
                await asyncio.wait_for(self.samples_wanted.wait(), PUSH_SECONDS)
            except TimeoutError:
                if self.socket.has_unsent:
                    continue
            self.samples_wanted.clear()
            self.send_bytes(await asyncio.to_thread(lambda: control.encode(control.Samples(self.snapshot()))))

    def read(self) -> None:
        try:
            messages = self.socket.receive()
        except PeerGone:
            self.on_gone()
            return
        for message in messages:
            self.on_message(message)

    def on_message(self, message: Any) -> None:
        match message:
            case control.LinkHeader(number):
                self.queue.put_nowait(Link(number, self.socket.take_socket()))
            case control.SamplesWanted():
                self.samples_wanted.set()
            case control.Sum(number, families):
                future = self.sums.get(number)
                if future is not None and not future.done():
                    future.set_result(families)
            case _:
                self.queue.put_nowait(message)

    def send(self, message: control.FromChild) -> None:
        self.send_bytes(control.encode(message))

    def send_bytes(self, message: bytes) -> None:
        try:
            self.socket.send(message)
        except PeerGone:
            self.on_gone()
            return
        if self.socket.has_unsent:
            self.loop.add_writer(self.socket.fileno(), self.write)

    def write(self) -> None:
        try:
            self.socket.flush()
        except PeerGone:
            self.on_gone()
            return
        if not self.socket.has_unsent:
            self.loop.remove_writer(self.socket.fileno())

    def on_gone(self) -> None:
        self.loop.remove_reader(self.socket.fileno())
        self.loop.remove_writer(self.socket.fileno())
        self.end_sums()
        self.queue.put_nowait(None)

    def end_sums(self) -> None:
        for future in self.sums.values():
            if not future.done():
                future.set_exception(TimeoutError())
