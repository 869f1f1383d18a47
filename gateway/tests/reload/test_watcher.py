"""When a configuration is read again: a signal, a changed file however it was changed, and both while requests pour in."""

import asyncio
import json
import os
import signal

import pytest

from gateway import log
from gateway.reload.watcher import LOOK_SECONDS, ConfigWatcher
from gateway.testing.socket_client import BOUND_SECONDS, posted
from gateway.tests.reload.conftest import ROW, until

OTHER = '[[models]]\nname = "other"\nbackend = "versioned"\n'


@pytest.fixture
def watched(started):
    """A gateway whose file is watched, without a socket."""

    class Watched:
        def __init__(self, running):
            self.running = running

        async def __aenter__(self):
            self.task = asyncio.create_task(self.running.gateway.watcher.watch())
            return self.running

        async def __aexit__(self, *_):
            assert not self.task.done()
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)

    return Watched


def names(running):
    return [model.name for model in running.gateway.catalog.models]


async def test_a_changed_file_is_loaded_by_itself(started, watched):
    async with started() as running, watched(running):
        running.path.write_text(running.settled(OTHER))  # in place, as an editor may
        await until(lambda: names(running) == ["other"])


async def test_kubernetes_swaps_a_link_and_the_file_behind_it_is_loaded(started, watched, tmp_path):
    async with started() as running:
        for name, text in (("..1", ROW), ("..2", ROW + OTHER)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "gateway.toml").write_text(running.settled(text))
        (tmp_path / "..data").symlink_to("..1")
        running.path.unlink()
        running.path.symlink_to("..data/gateway.toml")
        await running.reload()
        async with watched(running):
            (tmp_path / "..data_tmp").symlink_to("..2")
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            await until(lambda: names(running) == ["m", "other"])


async def test_a_file_that_goes_and_comes_again_is_loaded_when_it_is_there(started, watched):
    async with started() as running, watched(running):
        running.path.unlink()
        await until(lambda: running.results()["refused"] == 1)
        assert names(running) == ["m"]
        running.write(OTHER)
        await until(lambda: names(running) == ["other"])


async def test_a_gauge_says_that_the_file_that_stands_there_is_refused_until_one_is_accepted(started):
    async with started(ROW) as running:
        accepted = running.gateway.metrics.process.config_is_accepted._value.get
        assert accepted() == 1
        running.write("models = 3")
        await running.reload()
        assert accepted() == 0
        running.write(ROW)
        await running.reload()  # what was before comes back: nothing has changed, and nothing is refused any more
        assert (accepted(), running.results()["unchanged"]) == (1, 1)


async def test_a_file_is_not_looked_at_where_that_is_switched_off(started, watched):
    async with started(f"[server]\nwatch_config = false\n{ROW}") as running, watched(running):
        running.write(OTHER)
        await asyncio.sleep(2 * LOOK_SECONDS)
        assert names(running) == ["m"]
        running.gateway.watcher.is_wanted.set()  # what SIGHUP does
        await until(lambda: names(running) == ["other"])


async def test_asked_twice_quickly_it_is_read_once_more_after_the_first(started, watched):
    async with started() as running:
        running.backend.held["m"] = asyncio.Event()
        async with watched(running):
            running.write(f"{ROW}version = 2\n")
            wanted = running.gateway.watcher.is_wanted
            wanted.set()
            await until(lambda: ("m", 2) in running.backend.built)
            running.write(f"{ROW}version = 2\naliases = ['late']\n")
            wanted.set()
            wanted.set()
            running.backend.held["m"].set()
            await until(lambda: running.results()["loaded"] == 2)
            assert (await running.post(model="late")).status_code == 200
            await until(lambda: not wanted.is_set())
            assert running.backend.num_built == 2


async def test_a_defect_of_a_backend_refuses_the_file_and_the_watch_goes_on(started, watched):
    async with started() as running, watched(running):
        running.backend.has_a_defect = True
        running.write(OTHER)
        await until(lambda: running.results()["refused"] == 1)
        running.backend.has_a_defect = False
        running.gateway.watcher.is_wanted.set()
        await until(lambda: names(running) == ["other"])


class Load:
    """Clients on real sockets that never pause, each sending texts nobody sent before."""

    def __init__(self, address, *, clients):
        self.replies = []
        self.is_over = False
        self.tasks = [asyncio.create_task(self.client(address, number)) for number in range(clients)]

    async def client(self, address, number):
        while not self.is_over:
            self.replies.append(await posted(address, [f"text {number} {len(self.replies)}"]))

    async def ended(self):
        self.is_over = True
        await asyncio.wait_for(asyncio.gather(*self.tasks), BOUND_SECONDS)
        return self.replies


async def test_under_load_no_request_is_lost_whatever_the_file_becomes(started):
    log.configure(level="error", line_format="json")
    async with started(f"[server]\nport = 0\n[log]\nlevel = 'error'\n{ROW}", is_loaded=False) as running:
        gateway = running.gateway
        serving = asyncio.create_task(gateway.serve())
        await until(lambda: gateway.address and gateway.catalog.ready)
        host, _, port = gateway.address.removeprefix("http://").rpartition(":")
        load = Load((host, int(port)), clients=8)
        versions = ["version = 2", "verson = 3", "version = 3", "fingerprint = 'x'", "version = 4\naliases = ['a']", "[[models]]"]
        for round_, version in enumerate(versions * 2, start=1):
            num_before = len(load.replies)
            await until(lambda num_before=num_before: len(load.replies) > num_before + 20)
            running.write(f"[server]\nport = 0\n[log]\nlevel = 'error'\n{ROW}{version}\n")
            gateway.watcher.is_wanted.set()
            await until(lambda round_=round_: sum(running.results().values()) >= round_)
        replies = await load.ended()
        assert [reply for reply in replies if reply.status != 200] == []
        assert running.results()["refused"] >= 6
        assert running.results()["loaded"] >= 5
        seen = {reply.headers["x-gateway-fingerprint"][:8] for reply in replies}
        assert {"00000001", "00000002", "00000003", "00000004"} <= seen
        await running.retired()
        alive = [embedder for embedder in running.backend.built.values() if not embedder.is_closed]
        assert len(alive) == 1
        gateway.stop()
        await asyncio.wait_for(serving, BOUND_SECONDS)


async def test_sighup_is_a_reload_and_what_was_before_comes_back(started):
    async with started(f"[server]\nwatch_config = false\n{ROW}") as running:
        reload: ConfigWatcher = running.gateway.watcher
        before = signal.getsignal(signal.SIGHUP)
        with reload.on_hang_up(lambda: pytest.fail("the terminal is still there")):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.wait_for(reload.is_wanted.wait(), BOUND_SECONDS)
        assert signal.getsignal(signal.SIGHUP) == before


async def test_the_log_tells_what_was_loaded(started, capfd):
    async with started() as running:
        log.configure(level="info", line_format="json")
        running.write(ROW + OTHER)
        await running.reload()
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
        [told] = [line for line in lines if line["event"] == "configuration_loaded"]
        assert told["models"] == ["m", "other"]
