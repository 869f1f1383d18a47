"""A supervisor with small children instead of a gateway's, for the tests of the supervisor.

A front answers each connection with one line: its pid, its engine's pid and its keep_alive_seconds. What a client
sends first is a command: "" asks, "exit 3" ends the front by this code, "hang" holds the connection until the front drains.
An engine tells its pid on each link. The environment configures it; SMALL_ENGINE is "ok", "refuse" or "die".
"""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from gateway import log
from gateway.config import ConfigSource
from gateway.errors import OperatorError
from gateway.metrics import Metrics
from gateway.processes.control import Leave, Reload, Stop
from gateway.processes.control_channel import ControlChannel, Link
from gateway.processes.listeners import Listeners
from gateway.processes.supervisor import Supervisor


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


@dataclass
class Front:
    child: object
    metrics: Metrics = field(default_factory=Metrics)
    engine: str = "-"
    held: set = field(default_factory=set)
    pool: ThreadPoolExecutor = field(default_factory=ThreadPoolExecutor)

    async def run(self):
        self.pool.submit(str)  # a worker that waits for more work when the process ends
        servers = [await asyncio.start_server(self.answer, sock=each) for each in self.child.sockets]
        async with ControlChannel(self.child.control, snapshot=self.metrics.snapshot) as channel:
            channel.ready()
            async for event in channel.events():
                if isinstance(event, Link):
                    event.socket.setblocking(True)
                    self.engine = (await asyncio.to_thread(event.socket.recv, 100)).decode() or "-"
                    self.link = event.socket
                elif isinstance(event, Stop):
                    for server in servers:
                        server.close()
                    for writer in self.held:
                        writer.write(b"drained\n" if not event.force else b"forced\n")
                        await writer.drain()
                    if not event.force:
                        await asyncio.sleep(float(os.environ.get("SMALL_DRAIN", "0")))
                    return

    async def answer(self, reader, writer):
        command = (await reader.readline()).decode().split()
        self.metrics.access.auth_failures.labels("asked").inc()
        if command[:1] == ["exit"]:
            os._exit(int(command[1]))
        if command[:1] == ["hang"]:
            self.held.add(writer)
            writer.write(b"held\n")
            return
        if command[:1] == ["spin"]:  # without the event loop
            threading.Event().wait(30)
        writer.write(f"{os.getpid()} {self.engine} {self.child.config.server.keep_alive_seconds}\n".encode())
        writer.close()


@dataclass
class Engine:
    child: object
    metrics: Metrics = field(default_factory=Metrics)

    async def run(self):
        behaviour = os.environ.get("SMALL_ENGINE", "ok")
        if behaviour == "refuse":
            raise OperatorError("the model is missing")
        if behaviour == "die":
            os._exit(7)
        self.metrics.access.auth_failures.labels("asked").inc(100)
        links = {}
        servers = [await asyncio.start_server(self.show, sock=each) for each in self.child.sockets]
        async with ControlChannel(self.child.control, snapshot=self.metrics.snapshot) as self.channel:
            self.channel.ready()
            async for event in self.channel.events():
                match event:
                    case Link(number, end):
                        links[number] = end
                        end.send(str(os.getpid()).encode())
                    case Reload():
                        server = msgspec.structs.replace(self.child.config.server, keep_alive_seconds=7.0)
                        self.channel.accept(msgspec.structs.replace(self.child.config, server=server))
                        say("reloaded")
                    case Leave():
                        say("leaving", event.skip_delay)
                    case Stop():
                        say("engine stops", event.force)
                        break
            else:
                say("orphan engine")
        for server in servers:
            server.close()

    async def show(self, reader, writer):
        families = {family.name: family for family in await self.channel.sum()}
        shown = {
            "asked": sum(value for name, _, value in families["gateway_auth_failures"].samples if name.endswith("_total")),
            "restarts": sum(value for name, _, value in families["gateway_process_restarts"].samples if name.endswith("_total")),
            "processes": {labels["role"]: value for _, labels, value in families["gateway_processes"].samples},
            "cpu": families["process_cpu_seconds"].samples[0][2],
            "started": families["process_start_time_seconds"].samples[0][2],
        }
        writer.write(msgspec.json.encode(shown))
        writer.close()


def main():
    source = ConfigSource()
    config = source.read()
    log.configure(level="info", line_format="json")
    listeners = Listeners(config)
    say("urls", *listeners.urls, *(each.getsockname()[1] for each in listeners.of_engine))
    runs = {"engine": lambda child: asyncio.run(Engine(child).run()), "front": lambda child: asyncio.run(Front(child).run())}
    supervisor = Supervisor(config, source, listeners, num_fronts=2, runs=runs)
    try:
        sys.exit(supervisor.run())
    finally:
        listeners.close()


if __name__ == "__main__":
    main()
