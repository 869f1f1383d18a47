"""The engine process: the whole gateway but for its HTTP server. It answers the fronts' calls, over one socket each."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from gateway.app import Gateway
from gateway.background import BackgroundTask, launch
from gateway.build import BUILTIN_BACKENDS
from gateway.config import Config
from gateway.embedding.backend import Backend
from gateway.log import get_logger
from gateway.processes.child import Child
from gateway.processes.control import Leave, Reload, Stop
from gateway.processes.control_channel import ControlChannel, Link
from gateway.processes.fronts import Fronts
from gateway.server.event_loop import loop_factory

WATCH_SECONDS = 1.0  # between two looks for parts that only a new process mends

log = get_logger()


class OnlyRestartHelps(Exception):
    """Parts of the engine have died that a new process has anew: a device after an illegal access, a task of the gateway."""


def run_engine(child: Child) -> None:
    """Runs the engine process until it is told to stop, or its supervisor is gone. Raises OperatorError, OnlyRestartHelps."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(EngineProcess(child).serve())


class EngineProcess:
    """Used once. It loads the models of `child.config`, and says `ready` once they can serve."""

    def __init__(self, child: Child, backends: Iterable[Backend] = BUILTIN_BACKENDS) -> None:
        """Raises ConfigurationError."""
        self.child = child
        self.gateway = gateway = Gateway(child.config, backends, source=child.source)
        gateway.addresses = list(child.urls)
        self.fronts = Fronts(gateway, on_commit=self.on_commit)
        gateway.swap.followers = self.fronts
        gateway.tasks.append(BackgroundTask("fronts", self.fronts.watch))
        self.has_failed = asyncio.Event()  # the models of the start cannot be loaded
        self.control: ControlChannel

    async def serve(self) -> None:
        """Raises OperatorError if the models of the start cannot be loaded, OnlyRestartHelps."""
        gateway = self.gateway
        async with ControlChannel(self.child.control, snapshot=gateway.metrics.snapshot) as self.control:
            gateway.metrics.gather = self.control.sum
            try:
                async with gateway.running(on_ready=self.on_ready, on_failed=self.has_failed.set):
                    gateway.metrics.serve(self.child.sockets)
                    await self.first_end(self.follow(), self.watch(), self.wait_failed())
            finally:
                self.fronts.close()
        log.info("stopped")

    async def first_end(self, *works: Coroutine[Any, Any, None]) -> None:
        """Returns, or raises, as the first of these does; cancels the others."""
        tasks = [launch(work, name="engine") for work in works]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in ended:
            task.result()

    async def follow(self) -> None:
        """Does what the supervisor says, until that is to stop, or the supervisor is gone."""
        async for event in self.control.events():
            match event:
                case Link(number, connection):
                    await self.fronts.connect(number, connection)
                case Leave(skip_delay):
                    self.leave(skip_delay=skip_delay)
                case Reload():
                    if self.gateway.watcher is not None:
                        self.gateway.watcher.is_wanted.set()
                case Stop():
                    return

    def leave(self, *, skip_delay: bool) -> None:
        """The fronts begin to drain: `/readyz` says no, and after the delay nobody waits for a turn any more."""
        self.gateway.begin_shutdown()
        seconds = 0.0 if skip_delay else self.gateway.config.server.drain_delay_seconds
        asyncio.get_running_loop().call_later(seconds, self.gateway.drain)

    async def watch(self) -> None:
        """Raises OnlyRestartHelps once parts have died for good. In one process `/livez` then asks for a restart; here we can."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if dead := self.gateway.generation.dead_parts():
                log.error("engine_broken", failed=dead, hint="it ends, and a new engine process is started")
                raise OnlyRestartHelps(", ".join(dead))

    async def wait_failed(self) -> None:
        await self.has_failed.wait()

    def on_commit(self, config: Config) -> None:
        self.control.accept(config)

    def on_ready(self) -> None:
        self.gateway.announce()
        self.control.ready()
