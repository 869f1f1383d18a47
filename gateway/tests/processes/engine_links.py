"""The engine process's side with real links to it, in the test's own event loop: a test plays the fronts."""

import asyncio
import socket
import threading
from contextlib import asynccontextmanager

import msgspec
import numpy as np

from gateway.access.limits.gcra import limits_of
from gateway.app import Gateway
from gateway.calls.channel import Channel
from gateway.calls.engine_message import (
    CallFailure,
    Commit,
    Configure,
    Done,
    EnterLease,
    ExitLease,
    from_engine,
)
from gateway.calls.message import EmbedCall
from gateway.calls.packing import pack
from gateway.config import AuthSettings, Config, EngineSettings, LimitSettings, ModelRow, Secret, ServerSettings, StoreSettings
from gateway.embedding.cache import keys_of, seed_of
from gateway.embedding.embedder import Inputs
from gateway.processes.fronts import Fronts
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.tests.api.faulty import FaultyBackend, HeldEncoder

BOUND_SECONDS = 20
KEY = "test-key-of-more-than-24-characters"
FAKE, LOCAL = 0, 1  # the places of the two models: one that only the engine process tokenises for, and one on this machine


class Front:
    """A front's end of a channel. `pushed` has what answers no call, `refuses` what it answers to Configure."""

    def __init__(self, engine, number):
        self.engine, self.number = engine, number
        self.channel = Channel(from_engine, on_message=self.on_message, on_lost=self.on_lost)
        self.pushed, self.lost = asyncio.Queue(), asyncio.Event()
        self.configured = []
        self.refuses = None
        self.is_mute = False

    def on_lost(self):
        self.lost.set()

    async def open(self):
        ours, theirs = socket.socketpair()
        await self.channel.open(ours)
        await self.engine.fronts.connect(self.number, theirs)
        return await self.meet()

    async def meet(self):
        """Returns itself once a configuration is in effect."""
        self.generation = (await self.hear(Commit)).generation
        return self

    def on_message(self, message, payload):
        if isinstance(message, Configure) and not self.is_mute:
            self.configured.append(message)
            if self.refuses is None:
                self.channel.send(Done(number=message.number))
            else:
                attributes = {"message": self.refuses}
                self.channel.send(CallFailure(number=message.number, error="ConfigurationError", attributes=attributes))
        self.pushed.put_nowait((message, payload))

    async def hear(self, kind, number=None):
        """The next message of a kind, or of a call of several answers."""
        async with asyncio.timeout(BOUND_SECONDS):
            while True:
                message, self.payload = await self.pushed.get()
                if isinstance(message, kind) and number in (None, getattr(message, "number", None)):
                    return message

    def begin(self, kind, payload=b"", *, number=0, **fields):
        """Sends a call. Returns its number, and a task that ends with the answer."""
        number = self.channel.begin_call(number)
        self.channel.send(kind(number=number, **fields), payload)
        return number, asyncio.create_task(self.channel.answer_to(number))

    async def call(self, kind, payload=b"", **fields):
        async with asyncio.timeout(BOUND_SECONDS):
            answer, self.payload = await self.begin(kind, payload, **fields)[1]
        return answer

    @property
    def rows(self):
        return np.frombuffer(self.payload, dtype=np.float32)

    async def enter(self, caller):
        """The number of an entered lease, and the answer."""
        number, answered = self.begin(EnterLease, caller=caller)
        answer, _ = await answered
        return number, answer

    async def exit(self, lease, **fields):
        return await self.call(ExitLease, lease=lease, **fields)

    def embed_fields(self, texts, *, lease=0, places=(), caller="a", is_array=True, **more):
        """The fields of an EmbedCall, as a front makes them, and its payload."""
        local = self.engine.gateway.catalog.models[LOCAL].built
        inputs = Inputs(texts, is_array=is_array, caller=caller, deadline=0.0)
        prepared = local.preprocessor.prepare(inputs, threading.Event())  # as a front tokenises and cuts
        about = local.describe()
        fields = {
            "seconds": 30.0, "caller": caller, "normalize": True, "fingerprint": about.fingerprint,
            "generation": self.generation, "model": LOCAL, "lease": lease, "digests": keys_of(inputs, seed_of(inputs, about)),
            "token_counts": prepared.token_counts, "places": list(places),
        }  # fmt: skip
        return {**fields, **more}, pack(inputs, prepared.work).tobytes()

    async def embed(self, texts, **more):
        fields, payload = self.embed_fields(texts, **more)
        return await self.call(EmbedCall, payload, **fields)

    def begin_embed(self, texts, **more):
        fields, payload = self.embed_fields(texts, **more)
        return self.begin(EmbedCall, payload, **fields)

    async def close(self):
        """As a front that is killed."""
        self.channel.close()
        async with asyncio.timeout(BOUND_SECONDS):
            await self.lost.wait()


class Engine:
    def __init__(self, gateway):
        self.gateway = gateway
        self.committed = []
        self.fronts = Fronts(gateway, on_commit=self.committed.append)
        gateway.swap.followers = self.fronts

    @property
    def local(self):
        return self.gateway.catalog.models[LOCAL].built

    async def front(self, number=0):
        return await Front(self, number).open()

    def limits(self, caller):
        return limits_of(caller.allowance, self.gateway.generation.limiter.default)

    def num_running(self, caller):
        return self.gateway.generation.limiter.store.num_running(caller.public_id)


@asynccontextmanager
async def running(folder, *, fake=None, encoder=None, source=None, **sections):
    """An engine of two models, started and loaded; sections given by name replace the defaults."""
    (folder / "key").write_text(KEY)
    defaults = {
        "server": ServerSettings(port=0),
        "auth": AuthSettings(keys=Secret(file=str(folder / "key"))),
        "limits": LimitSettings(max_request_tokens=100),
        "engine": EngineSettings(warmup_seconds=0),
        "store": StoreSettings(data_dir=str(folder / "data")),
        "models": (
            ModelRow(name="fake", backend="fake"),
            ModelRow(name="m", aliases=("org/m",), backend="faulty", settings={"source": "none"}),
        ),
    }
    encoder = encoder or HeldEncoder()
    backends = [FakeBackend(fake=fake or FakeEmbedder()), FaultyBackend([encoder])]
    gateway = Gateway(Config(**{**defaults, **sections}), backends=backends, source=source)
    engine = Engine(gateway)
    engine.encoder = encoder
    await gateway.start()
    try:
        await gateway.load()
        yield engine
    finally:
        engine.fronts.close()
        await gateway.close()


def config_of(message):
    return msgspec.msgpack.decode(message.config, type=Config)
