"""All fronts of the engine process: they follow its generations, and hear what changed of models and keys."""

import asyncio
import socket
from collections.abc import Callable

from gateway.access.key_access import KeyAccess
from gateway.access.keys.snapshot import KeySnapshot
from gateway.app import Gateway
from gateway.calls.channel import ChannelClosed
from gateway.calls.engine_message import KeysChanged, ModelState, ModelStates
from gateway.config import Config
from gateway.processes.front_connection import FrontConnection
from gateway.processes.key_watch import KeyWatch
from gateway.processes.model_states import state_of
from gateway.reload.generation import Generation
from gateway.reload.swap import Followers

WATCH_SECONDS = 0.25  # between two looks at the models' states: a breaker opens, a device fails


class Fronts(Followers):
    """`on_commit` gets each configuration that took effect. Used on the event loop only."""

    def __init__(self, gateway: Gateway, *, on_commit: Callable[[Config], None]) -> None:
        self.gateway = gateway
        self.on_commit = on_commit
        self.connections: dict[int, FrontConnection] = {}
        self.known: list[ModelState] = []  # what the fronts were told of the models of the generation in effect
        self.keys = KeyWatch(on_changed=self.forget_callers)
        self.is_empty = asyncio.Event()
        self.is_empty.set()

    async def connect(self, front: int, connection: socket.socket) -> None:
        """Takes a new link to a front. An earlier one of this front is of a process that is gone."""
        if before := self.connections.get(front):
            before.close()
        self.connections[front] = ours = FrontConnection(
            front, self.gateway, keys=self.keys, update=self.update, on_lost=self.on_lost
        )
        self.is_empty.clear()
        await ours.open(connection)
        ours.commit(self.gateway.generation)

    def on_lost(self, connection: FrontConnection) -> None:
        if self.connections.get(connection.front) is connection:
            del self.connections[connection.front]
        if not self.connections:
            self.is_empty.set()

    async def prepare(self, generation: Generation) -> None:
        """Lets each front build the generation. One that refuses, and lives, refuses for all. Raises ConfigurationError."""
        asked = [(each, number) for each in self.connections.values() if (number := _configure(each, generation)) is not None]
        await asyncio.gather(*(each.wait_configured(number) for each, number in asked))

    def withdraw(self, generation: Generation) -> None:
        for connection in self.connections.values():
            connection.generations.release(generation.number)

    def commit(self, generation: Generation) -> None:
        for connection in self.connections.values():
            connection.commit(generation)
        self.known = []
        self.update()
        self.keys.watch(_keys_of(self.gateway))
        self.forget_callers()
        self.on_commit(generation.config)

    def update(self) -> None:
        """Tells the fronts which models changed since they were told last."""
        states = [state_of(model) for model in self.gateway.catalog.models]
        known = self.known if len(self.known) == len(states) else [None] * len(states)
        changed = {place: state for place, (state, old) in enumerate(zip(states, known, strict=True)) if state != old}
        self.known = states
        if changed:
            self.send(ModelStates(generation=self.gateway.generation.number, models=changed))

    def forget_callers(self) -> None:
        """Lets the fronts ask anew whose a key is."""
        self.send(KeysChanged())

    def send(self, message: ModelStates | KeysChanged) -> None:
        for connection in self.connections.values():
            connection.channel.send(message)

    async def watch(self) -> None:
        """Runs until it is cancelled."""
        self.keys.watch(_keys_of(self.gateway))
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self.update()
            self.keys.look()
            for connection in self.connections.values():
                connection.prepared.drop_late()

    def close(self) -> None:
        for connection in list(self.connections.values()):
            connection.close()


def _configure(connection: FrontConnection, generation: Generation) -> int | None:
    try:
        return connection.configure(generation)
    except ChannelClosed:
        return None


def _keys_of(gateway: Gateway) -> KeySnapshot | None:
    access = gateway.access_control
    return access.snapshot if isinstance(access, KeyAccess) else None
