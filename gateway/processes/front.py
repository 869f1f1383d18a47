"""A front: the process that speaks HTTP with clients. It has no models, no database and no connections to other servers.

It begins with the configuration of its fork and without an engine process: work is refused until that has told its own. Each link
to an engine process has a client of its own; so nothing that was asked of one is ever answered by the next.
"""

import asyncio
import gc
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import uvloop
from litestar.types import Receive, Scope, Send

from gateway import log as logging
from gateway.api.error_handler import error_response
from gateway.api.memory_trim import MemoryWatch
from gateway.background import BackgroundTask
from gateway.calls.engine_message import CallFailure, Commit, Configure, Done, KeysChanged, ModelStates, Released
from gateway.config import Config
from gateway.errors import ConfigurationError
from gateway.log import get_logger
from gateway.malloc import malloc_trim
from gateway.metrics import Metrics
from gateway.processes.acceptor import BalancedAcceptor
from gateway.processes.child import Child
from gateway.processes.control import MakeRoom, RoomMade, Stop
from gateway.processes.control_channel import ControlChannel, Link
from gateway.processes.engine_client import EngineClient
from gateway.processes.front_generation import FrontBuilder, FrontGeneration
from gateway.processes.shared_admission import SharedAdmission
from gateway.processes.shared_connections import SharedConnections
from gateway.server.log_sampler import LogSampler
from gateway.server.loop_lag import watch_loop_lag
from gateway.server.server import Server
from gateway.tracing import Tracing

PATIENCE_SECONDS = 5.0  # an engine process tells its configuration within a second of its start, before it loads models

log = get_logger()


def run_front(child: Child) -> None:
    """Runs a front until the supervisor ends it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(child))


async def _serve(child: Child) -> None:
    await Front(child).serve()


class Front:
    """`current` is the generation in effect. Other attributes belong to the process. Made on the event loop that serves.

    It accepts connections once the engine process has told its configuration, or after `patience_seconds` without one: until then
    the other fronts accept, or they wait in the kernel.
    """

    def __init__(self, child: Child, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        config, settings = child.config, child.config.server
        self.child = child
        self.patience_seconds = patience_seconds
        self.may_accept = asyncio.Event()
        self.is_leaving = self.is_draining = False
        self.channel: ControlChannel
        self.metrics = Metrics()
        self.tracing = Tracing(config.traces) if config.traces.endpoint else None
        self.sampler = LogSampler(self.metrics)
        self.admission = SharedAdmission(
            max_requests=settings.max_concurrent_requests,
            max_bytes=settings.max_buffered_bytes,
            totals=child.totals,
            front=child.number,
        )
        self.builder = FrontBuilder(
            self.admission, self.metrics, self.sampler, self.tracing,
            is_leaving=lambda: self.is_leaving, is_draining=lambda: self.is_draining, on_idle=self.on_idle,
        )  # fmt: skip
        self.client = EngineClient(on_message=lambda *_: None, on_lost=lambda: None)
        self.current = self.builder.build(config, self.client)
        self.pending: FrontGeneration | None = None
        self.retired: list[FrontGeneration] = []
        self.server = Server(
            self, settings, metrics=self.metrics, render_error=error_response, sampler=self.sampler, takes_signals=False,
            accept=self.accept, counts=SharedConnections(child.totals, child.number, ask=self.ask_for_room),
            on_leave=self.leave, on_drain=self.drain, is_idle=lambda: self.admission.num_requests == 0,
        )  # fmt: skip
        self.tasks = [BackgroundTask("lag-watch", partial(watch_loop_lag, self.metrics), on_death=self.server.stop)]
        if trim := malloc_trim():
            self.tasks.append(BackgroundTask("memory-watch", MemoryWatch(self.admission, trim).watch, on_death=self.server.stop))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application: the generation in effect when a request arrives answers it."""
        await self.current(scope, receive, send)

    async def serve(self) -> None:
        """Serves until the supervisor says Stop, or is gone."""
        async with ControlChannel(self.child.control, snapshot=self.metrics.snapshot) as self.channel:
            obeying = BackgroundTask("obey", self.obey, may_end=True, on_death=self.end)
            for task in (*self.tasks, obeying):
                task.start()
            await self.wait_configured()
            self.channel.ready()
            try:
                await self.server.serve(sockets=list(self.child.sockets))
            finally:
                for task in (*self.tasks, obeying):
                    await task.close()
                await self.close()

    async def wait_configured(self) -> None:
        """Waits until it can serve, or must end, but not for long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.may_accept.wait(), self.patience_seconds)

    async def obey(self) -> None:
        """Does what the supervisor says, until it is gone."""
        async for event in self.channel.events():
            match event:
                case Link():
                    await self.connect(event.socket)
                case Stop(skip_delay=skip_delay, force=force):
                    self.server.force_exit = self.server.force_exit or force
                    self.server.stop(skip_delay=skip_delay)
                    self.may_accept.set()
                case MakeRoom(address=address):
                    self.channel.answer_room(event, self.child.number, was_made=self.server.table.make_room(address))
                case RoomMade():
                    self.server.table.resume_held()
        self.end()

    def accept(self, sockets: Sequence[socket.socket], make_protocol: Callable[[], asyncio.Protocol]) -> BalancedAcceptor:
        return BalancedAcceptor(sockets, make_protocol, self.child.totals, self.child.number)

    def ask_for_room(self, address: str | None) -> None:
        self.channel.ask_for_room(self.child.number, address)

    def end(self) -> None:
        self.server.force_exit = True
        self.server.stop(skip_delay=True)
        self.may_accept.set()

    async def connect(self, connection: socket.socket) -> None:
        """Speaks with a new engine process. Its first configuration replaces the one in effect as a reload does."""
        self.client.close()
        client = EngineClient(on_message=lambda message, _: self.on_message(client, message), on_lost=self.on_lost)
        self.client = client
        await client.open(connection)

    def on_lost(self) -> None:
        if not self.server.should_exit:
            log.info("engine_lost", hint="requests are refused until it is back")

    def on_message(self, client: EngineClient, message: Any) -> None:
        """Handles what the engine process says unasked, and in its order: nothing here waits."""
        match message:
            case Configure():
                self.configure(client, message)
            case Commit(generation=number):
                if self.pending is not None and (self.pending.client, self.pending.number) == (client, number):
                    self.swap(self.pending)
            case ModelStates(generation=number, models=states):
                for generation in self.generations():
                    if (generation.client, generation.number) == (client, number):
                        generation.show(states)
            case KeysChanged():
                for generation in self.generations():
                    generation.forget_callers()

    def generations(self) -> list[FrontGeneration]:
        pending = [self.pending] if self.pending is not None else []
        return [self.current, *pending, *self.retired]

    def configure(self, client: EngineClient, message: Configure) -> None:
        """Builds a configuration's parts, to take effect at its Commit."""
        self.drop_pending()
        try:
            config = msgspec.msgpack.decode(message.config, type=Config)
            self.pending = self.builder.build(config, client, message, before=self.current)
        except ConfigurationError as error:
            client.send(CallFailure(number=message.number, error=type(error).__name__, attributes={"message": str(error)}))
            return
        client.send(Done(number=message.number))

    def drop_pending(self) -> None:
        if (dropped := self.pending) is not None:
            self.pending = None
            self.retire(dropped)

    def swap(self, after: FrontGeneration) -> None:
        """Puts a generation into effect, between two requests. Its client is usable from now on."""
        before, self.current, self.pending = self.current, after, None
        after.client.is_usable = True
        self.may_accept.set()
        settings = after.config.server
        self.admission.max_requests, self.admission.max_bytes = settings.max_concurrent_requests, settings.max_buffered_bytes
        self.server.apply_settings(settings)
        self.server.table.configure(settings)
        if after.config.log != before.config.log:
            logging.configure(level=after.config.log.level, line_format=after.config.log.format)
        self.retire(before)
        gc.collect()
        gc.freeze()  # as one process does once it is ready: collecting its long-lived objects would block the loop

    def retire(self, generation: FrontGeneration) -> None:
        self.retired.append(generation)
        generation.retire()

    def on_idle(self, generation: FrontGeneration) -> None:
        """The last request of a retired generation is over."""
        self.retired.remove(generation)
        generation.client.send(Released(generation=generation.number))
        generation.close()

    def leave(self) -> None:
        """From now on `/readyz` fails, and each response closes its connection. Requests are still served."""
        self.is_leaving = True
        if self.server.force_exit:  # what went wrong is the last line then
            return
        log.info("leaving", seconds=self.server.drain_delay_seconds)

    def drain(self) -> None:
        """From now on new requests are refused; those in flight continue."""
        self.is_draining = True
        if self.server.force_exit:
            return
        log.info("draining")

    async def close(self) -> None:
        self.sampler.end_window()
        for generation in self.generations():
            generation.close()
        self.client.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
