"""A front on the test's own event loop, beside an engine process that the test scripts: real sockets and real channels."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import numpy as np

from gateway.access.keys.key import Caller
from gateway.calls.channel import Channel
from gateway.calls.engine_message import (
    AuthenticateCall,
    BudgetCall,
    CallerResult,
    CallFailure,
    Commit,
    Configure,
    Done,
    EmbedPrepared,
    EnterLease,
    ExitLease,
    HTTPCall,
    HTTPResult,
    InfoCall,
    LeaseState,
    ModelInfo,
    ModelState,
    PrepareCall,
    PreparedResult,
    ReadyCall,
    from_front,
)
from gateway.calls.failure import failure_of
from gateway.calls.message import EmbedCall, EmbedResult, ReplicaInfo
from gateway.calls.packing import unpack
from gateway.config import Config, ConfigSource
from gateway.embedding.embedder import Description, Health
from gateway.errors import GatewayError
from gateway.processes import control
from gateway.processes.child import Child
from gateway.processes.control_socket import ControlSocket
from gateway.processes.front import Front
from gateway.processes.totals import Totals
from gateway.testing.fakes import hashed

ABOUT = Description("fake", "fake", 8, 256, "chunk", "f" * 24 + ".fake-float32", "fake", "cpu", "float32", 1)


class ScriptedEngine:
    """Answers a front's calls as an engine process with fake models does, unless `answers` has another function for a kind.

    Such a function gets the message and its payload. It returns the answer, an answer and its payload, an error, or None for no
    answer. `heard` has all messages, in order.
    """

    def __init__(self, config: Config, *, callers: dict[str, Caller] | None = None) -> None:
        self.config = config
        self.callers = callers or {}
        self.heard: list[Any] = []
        self.answers: dict[type, Callable[[Any, bytes], Any]] = {}
        self.states = [
            ModelState(state="ready", health=Health("ready"), description=ABOUT, is_tokenized_here=True) for _ in config.models
        ]
        self.info: ReplicaInfo | None = None
        self.prepared: dict[int, PrepareCall] = {}
        self.has_heard = asyncio.Event()
        self.generation = 0
        self.channel: Channel | None = None

    def tell(self, info: ReplicaInfo) -> None:
        """Lets fronts tokenise for its models, by this."""
        self.info = info
        self.states = [msgspec.structs.replace(state, is_tokenized_here=False) for state in self.states]

    async def open(self, end: socket.socket) -> None:
        self.channel = Channel(from_front, on_message=self.on_message, calls_first=False)
        await self.channel.open(end)

    async def configure(self, config: Config | None = None, *, commits: bool = True) -> Any:
        """Tells the front its configuration. Returns the front's answer."""
        assert self.channel is not None
        self.config, self.generation = config or self.config, self.generation + 1
        number = self.channel.begin_call()
        raw = msgspec.Raw(msgspec.msgpack.encode(self.config))
        self.channel.send(
            Configure(
                number=number, generation=self.generation, config=raw, models=self.states, methods={"/v1/models": "GET, HEAD"}
            )
        )
        answer, _ = await self.channel.answer_to(number)
        if commits:
            self.channel.send(Commit(generation=self.generation))
        return answer

    def on_message(self, message: Any, payload: bytes) -> None:
        assert self.channel is not None
        self.heard.append(message)
        self.has_heard.set()
        answer = self.answers.get(type(message), self.answer)(message, payload)
        if isinstance(answer, GatewayError):
            name, attributes = failure_of(answer)
            answer = CallFailure(number=message.number, error=name, attributes=attributes)
        if answer is not None:
            self.channel.send(*(answer if isinstance(answer, tuple) else (answer,)))

    def answer(self, message: Any, payload: bytes) -> Any:  # noqa: PLR0911 - one for each kind
        match message:
            case PrepareCall(number=number, inputs=inputs):
                self.prepared[number] = message
                counts = [len(text.split()) for text in inputs.texts]
                return PreparedResult(number=number, token_counts=counts, is_long=[False] * len(counts), rule="chunk", stages={})
            case EmbedPrepared(number=number):
                inputs = self.prepared.pop(number).inputs
                rows = np.stack([hashed(text, ABOUT.dimensions) for text in inputs.texts])
                return EmbedResult(number=number, dimensions=ABOUT.dimensions, stages={"queue": 0.0}), rows.tobytes()
            case EmbedCall(number=number):
                windows = unpack(np.frombuffer(payload, dtype=np.int32)).work.windows
                rows = np.stack([hashed(str(window.token_ids), ABOUT.dimensions) for window in windows])
                return EmbedResult(number=number, dimensions=ABOUT.dimensions, stages={"queue": 0.0}), rows.tobytes()
            case AuthenticateCall(number=number, key=key):
                from gateway.errors import InvalidKey

                return (
                    CallerResult(number=number, caller=self.callers[key])
                    if key in self.callers
                    else InvalidKey("Incorrect API key provided.")
                )
            case BudgetCall(number=number) | ReadyCall(number=number):
                return Done(number=number)
            case InfoCall(number=number):
                return ModelInfo(number=number, info=self.info)
            case EnterLease(number=number):
                return LeaseState(number=number)
            case ExitLease(number=number) if number:
                return LeaseState(number=number)
            case HTTPCall(number=number, path=path):
                return HTTPResult(number=number, status=200, headers=[(b"content-type", b"text/plain")], route=path), path.encode()
        return None

    async def hear(self, kind: type) -> Any:
        """The latest message of this kind, once there is one."""
        while True:
            self.has_heard.clear()
            if found := [message for message in self.heard if isinstance(message, kind)]:
                return found[-1]
            async with asyncio.timeout(10):
                await self.has_heard.wait()

    def die(self) -> None:
        assert self.channel is not None
        self.channel.close()


class RunningFront:
    """`supervisor` is the other end of its control socket; `origin` is its address. Fronts of one gateway share `totals`."""

    def __init__(self, config: Config, *, number: int = 0, num_fronts: int = 2, totals: Totals | None = None) -> None:
        self.config = config
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        end, theirs = socket.socketpair()
        self.supervisor = ControlSocket(end, control.from_child)
        self.child = Child(
            role="front", number=number, num_fronts=num_fronts, config=config, source=ConfigSource(None), sockets=(self.listening,),
            urls=(self.origin,), totals=totals or Totals(num_fronts), control=theirs,
        )  # fmt: skip
        self.front = Front(self.child, patience_seconds=0)
        self.engines: list[ScriptedEngine] = []

    async def link(self, engine: ScriptedEngine) -> None:
        """Links the front to an engine process, as the supervisor does."""
        ours, theirs = socket.socketpair()
        await engine.open(ours)
        self.engines.append(engine)
        self.give_link(theirs)

    def give_link(self, end: socket.socket) -> None:
        self.supervisor.send(control.encode(control.LinkHeader(0)), end)

    @property
    def can_serve(self) -> bool:
        """Whether an engine process's configuration is in effect, and the tokenizers of its models are here."""
        embedders = self.front.current.embedders
        return self.front.client.is_usable and all(each.tokenizing or each.shown.is_tokenized_here for each in embedders)

    async def stop(self) -> None:
        self.supervisor.send(control.encode(control.Stop(skip_delay=True)))

    def close(self) -> None:
        for engine in self.engines:
            engine.die()
        for end in (self.supervisor, self.child.control, self.listening):
            end.close()


@asynccontextmanager
async def running_front(config: Config) -> AsyncIterator[tuple[RunningFront, httpx.AsyncClient]]:
    """A front that serves, without an engine process yet, and a client of it."""
    running = RunningFront(config)
    serving = asyncio.create_task(running.front.serve())
    try:
        async with httpx.AsyncClient(base_url=running.origin, timeout=20) as client:
            yield running, client
    finally:
        await running.stop()
        async with asyncio.timeout(20):
            await serving
        running.close()
