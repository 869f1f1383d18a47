"""The life of the engine process, with a supervisor that the test plays: links, reloads, its end, and what only a restart mends."""

import asyncio
import socket

import msgspec
import pytest

from gateway.calls.engine_message import ModelStates
from gateway.config import ConfigSource
from gateway.errors import OperatorError
from gateway.processes import control
from gateway.processes.child import Child
from gateway.processes.control_socket import ControlSocket
from gateway.processes.engine_process import EngineProcess, OnlyRestartHelps
from gateway.processes.totals import Totals
from gateway.testing.fakes import FakeBackend, FakeEmbedder
from gateway.tests.api.faulty import FaultyBackend, HeldEncoder
from gateway.tests.processes.engine_links import BOUND_SECONDS, FAKE, Front

ROWS = '[[models]]\nname = "fake"\nbackend = "fake"\n[[models]]\nname = "m"\nbackend = "faulty"\nsource = "none"\n'


class Supervised:
    """An engine process in the test's loop. `said` is what it said to its supervisor."""

    def __init__(self, folder, *, fake, encoder, **sections):
        self.path = folder / "gateway.toml"
        self.write(ROWS)
        self.source = ConfigSource(self.path)
        config = msgspec.structs.replace(self.source.read(), **sections)
        ours, theirs = socket.socketpair()
        self.socket = ControlSocket(ours, control.from_child)
        self.child = Child(
            role="engine", number=0, num_fronts=2, config=config, source=self.source, sockets=(), urls=("http://127.0.0.1:1",),
            totals=Totals(2), control=theirs,
        )  # fmt: skip
        self.engine = EngineProcess(self.child, [FakeBackend(fake=fake), FaultyBackend([encoder])])
        self.said = []

    def write(self, rows):
        folder = self.path.parent
        self.path.write_text(f"auth.mode = 'none'\nstore.data_dir = '{folder}/data'\nengine.warmup_seconds = 0\n{rows}")

    def send(self, message, beside=None):
        self.socket.send(control.encode(message), beside)

    async def hear(self, kind):
        async with asyncio.timeout(BOUND_SECONDS):
            while not (found := [message for message in self.said if isinstance(message, kind)]):
                self.said += self.socket.receive()
                await asyncio.sleep(0.002)
        self.said.remove(found[0])
        return found[0]

    async def end(self):
        """As a supervisor that is killed."""
        self.socket.close()
        async with asyncio.timeout(BOUND_SECONDS):
            await asyncio.wait([self.serving])
        self.child.control.close()

    async def front(self, number=0):
        ours, theirs = socket.socketpair()
        front = Front(self.engine, number)
        await front.channel.open(ours)
        self.send(control.LinkHeader(number), beside=theirs)
        return await front.meet()


@pytest.fixture
def encoder():
    return HeldEncoder()


@pytest.fixture
def fake():
    return FakeEmbedder()


@pytest.fixture
async def supervised(tmp_path, fake, encoder):
    supervised = Supervised(tmp_path, fake=fake, encoder=encoder)
    supervised.serving = asyncio.create_task(supervised.engine.serve())
    yield supervised
    await supervised.end()


async def test_it_says_ready_serves_links_and_stops(supervised):
    await supervised.hear(control.Ready)
    front = await supervised.front()
    assert (await front.embed(["1"])).num_hits == 0
    supervised.send(control.Leave(skip_delay=True))
    supervised.send(control.Stop())
    async with asyncio.timeout(BOUND_SECONDS):
        await supervised.serving
        await front.lost.wait()


async def test_a_new_link_of_a_front_replaces_the_former(supervised):
    await supervised.hear(control.Ready)
    before = await supervised.front()
    after = await supervised.front()
    async with asyncio.timeout(BOUND_SECONDS):
        await before.lost.wait()
    assert (await after.embed(["1"])).num_hits == 0


async def test_it_ends_with_its_supervisor(supervised):
    await supervised.hear(control.Ready)
    await supervised.end()
    supervised.serving.result()


async def test_a_hang_up_reloads_and_the_supervisor_keeps_what_was_accepted(supervised):
    await supervised.hear(control.Ready)
    supervised.write(ROWS + 'aliases = ["alias"]\n')
    supervised.send(control.Reload())
    accepted = await supervised.hear(control.Accepted)
    assert accepted.config.models[1].aliases == ("alias",)
    assert accepted.config == supervised.engine.gateway.config


async def test_models_of_the_start_that_cannot_be_loaded_end_it(tmp_path, encoder):
    supervised = Supervised(tmp_path, fake=FakeEmbedder(fails_with="its files are missing"), encoder=encoder)
    supervised.engine.gateway.catalog.models.pop()
    supervised.serving = asyncio.create_task(supervised.engine.serve())
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(OperatorError, match="its files are missing"):
            await supervised.serving
    await supervised.end()


async def test_a_device_that_fails_for_good_ends_it_so_that_a_new_process_has_a_new_one(supervised):
    await supervised.hear(control.Ready)
    front = await supervised.front()
    for _ in range(4):  # three restarts of the thread, then no more
        await front.embed(["kills"])
    async with asyncio.timeout(BOUND_SECONDS):
        with pytest.raises(OnlyRestartHelps, match="m"):
            await supervised.serving


class SlowToLoad(FakeEmbedder):
    def __init__(self):
        super().__init__()
        self.may_load = asyncio.Event()

    async def start(self):
        await self.may_load.wait()
        await super().start()


async def test_a_front_hears_of_a_model_that_is_loaded_later(tmp_path, encoder):
    slow = SlowToLoad()
    supervised = Supervised(tmp_path, fake=slow, encoder=encoder)
    supervised.serving = asyncio.create_task(supervised.engine.serve())
    front = await supervised.front()
    assert front.configured[0].models[FAKE].state == "loading"
    assert front.configured[0].models[FAKE].description is None
    slow.may_load.set()
    await supervised.hear(control.Ready)
    async with asyncio.timeout(BOUND_SECONDS):
        while FAKE not in (states := (await front.hear(ModelStates)).models) or states[FAKE].state != "ready":
            pass
    assert states[FAKE].description == slow.describe()
    await supervised.end()
