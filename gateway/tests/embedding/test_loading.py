"""Loading: one at a time, on first use where that is wanted, and again when it failed."""

import asyncio
import time

import pytest

from gateway import log
from gateway.config import ModelRow
from gateway.embedding.catalog import Catalog
from gateway.embedding.embedder import Health
from gateway.embedding.loading import MAX_WAITING, RETRIES, Loader
from gateway.embedding.model import Model
from gateway.errors import ConfigurationError, ModelLoading, ModelUnavailable, Overloaded
from gateway.testing.fakes import FakeClock, FakeEmbedder

BOUND_SECONDS = 10


class Held(FakeEmbedder):
    """Its loading waits for a gate, and is counted."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.start_gate = asyncio.Event()
        self.start_gate.set()
        self.is_starting = asyncio.Event()
        self.num_starts = 0
        self.breaks_with: Exception | None = None

    async def start(self):
        self.num_starts += 1
        self.is_starting.set()
        await self.start_gate.wait()
        if self.breaks_with is not None:
            raise self.breaks_with
        await super().start()


def model(name="m", embedder=None, **row):
    return Model(ModelRow(name=name, **row), embedder or Held())


async def served(catalog, name="m", *, seconds=BOUND_SECONDS):
    await catalog.ensure_ready(catalog.find(name), name, deadline=time.monotonic() + seconds)


async def test_the_first_request_loads_the_model_and_all_who_come_meanwhile_wait_for_the_same_load():
    loaded = []
    lazy = model(load="first_use")
    catalog = Catalog([lazy], Loader(on_loaded=lambda each: loaded.append(each.name)))
    assert lazy.state == "unloaded"
    assert catalog.ready
    lazy.embedder.start_gate.clear()
    waiting = [asyncio.create_task(served(catalog)) for _ in range(10)]
    await lazy.embedder.is_starting.wait()
    assert lazy.state == "loading"
    assert catalog.ready  # a probe that said no would take the other models out of service
    lazy.embedder.start_gate.set()
    await asyncio.gather(*waiting)
    await served(catalog)
    assert (lazy.state, lazy.embedder.num_starts, loaded) == ("ready", 1, ["m"])


async def test_a_request_waits_no_longer_than_its_deadline_and_the_load_goes_on():
    lazy = model(load="first_use")
    catalog = Catalog([lazy])
    lazy.embedder.start_gate.clear()
    with pytest.raises(ModelLoading) as caught:
        await served(catalog, seconds=0.01)
    assert 1 <= int(caught.value.headers()["Retry-After"]) <= 59
    lazy.embedder.start_gate.set()
    await served(catalog)
    assert lazy.embedder.num_starts == 1


async def test_a_client_who_leaves_does_not_stop_the_load_of_the_others():
    lazy = model(load="first_use")
    catalog = Catalog([lazy])
    lazy.embedder.start_gate.clear()
    first, second = asyncio.create_task(served(catalog)), asyncio.create_task(served(catalog))
    await lazy.embedder.is_starting.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    lazy.embedder.start_gate.set()
    await second
    assert lazy.load_state.num_waiting == 0


async def test_no_more_than_so_many_wait():
    lazy = model(load="first_use")
    catalog = Catalog([lazy])
    lazy.embedder.start_gate.clear()
    waiting = [asyncio.create_task(served(catalog)) for _ in range(MAX_WAITING)]
    await lazy.embedder.is_starting.wait()
    with pytest.raises(ModelLoading):
        await served(catalog)
    lazy.embedder.start_gate.set()
    await asyncio.gather(*waiting)


async def test_a_model_that_waits_for_what_is_unavailable_holds_up_nobody_and_comes_by_itself():
    away, lazy = model("away"), model("lazy", load="first_use")
    catalog = Catalog([away, lazy])
    away.embedder.start_gate.clear()
    load = asyncio.create_task(catalog.loader.load(away))
    await away.embedder.is_starting.wait()
    assert (away.state, catalog.ready) == ("loading", False)
    away.embedder.state = Health("loading", "http://10.0.0.1 cannot be reached", "upstream_unavailable")
    await asyncio.wait_for(load, BOUND_SECONDS)
    assert (away.state, away.category, away.is_broken) == ("failed", "upstream_unavailable", False)
    assert catalog.ready
    await served(catalog, "lazy")
    with pytest.raises(ModelUnavailable):
        await served(catalog, "away")
    away.embedder.start_gate.set()
    await asyncio.wait_for(away.load_state.task, BOUND_SECONDS)
    await served(catalog, "away")
    assert away.embedder.num_starts == 1


async def test_a_model_that_cannot_be_loaded_says_when_it_is_tried_again():
    clock = FakeClock()
    lazy = model(embedder=Held(fails_with="its weights are missing"), load="first_use")
    catalog = Catalog([lazy], Loader(clock=clock))
    for _ in range(8):
        with pytest.raises(ModelUnavailable, match=r"This model has failed\. It could not be loaded\.") as caught:
            await served(catalog)
        assert (caught.value.status, caught.value.code) == (503, "model_unavailable")
        left = lazy.load_state.retry_at - clock()
        assert caught.value.headers()["Retry-After"] == str(min(max(1, round(left)), 59))
        clock.advance(left / 2)
        with pytest.raises(ModelUnavailable) as caught:
            await served(catalog)
        assert caught.value.headers()["Retry-After"] == str(min(max(1, round(left / 2)), 59))
        clock.advance(left / 2 + 0.01)
    assert lazy.embedder.num_starts == 8


async def test_a_model_that_failed_on_first_use_is_tried_again_by_a_request_but_not_by_each():
    clock = FakeClock()
    lazy = model(embedder=Held(fails_with="its weights are missing"), load="first_use")
    catalog = Catalog([lazy], Loader(clock=clock))
    for _ in range(3):
        with pytest.raises(ModelUnavailable, match="This model has failed"):
            await served(catalog)
    assert (lazy.state, lazy.category, lazy.embedder.num_starts) == ("failed", "cannot_be_loaded", 1)
    assert not catalog.ready
    clock.advance(RETRIES.first_seconds)
    lazy.embedder.fails_with = None
    await served(catalog)
    assert (lazy.state, lazy.embedder.num_starts) == ("ready", 2)


async def test_a_model_that_failed_at_the_start_is_tried_again_later_and_later_and_called_failed_meanwhile():
    clock = FakeClock()
    broken = model(embedder=Held(fails_with="the server is unavailable"))
    loader = Loader(clock=clock)
    waits = []
    for _ in range(9):
        await loader.load(broken)
        waits.append(broken.load_state.retry_at - clock.now)
    ceilings = [15, 30, 60, 120, 240, 480, 900, 900, 900]
    assert all(ceiling / 2 <= wait <= ceiling for wait, ceiling in zip(waits, ceilings, strict=True))
    assert len(set(waits[-3:])) == 3  # many gateways do not come back in step
    broken.embedder.start_gate.clear()
    broken.embedder.fails_with = None
    watch = asyncio.create_task(loader.watch(lambda: [broken]))
    clock.advance(900)
    broken.embedder.is_starting.clear()
    await asyncio.wait_for(broken.embedder.is_starting.wait(), BOUND_SECONDS)
    assert broken.state == "failed"
    broken.embedder.start_gate.set()
    await asyncio.wait_for(asyncio.shield(broken.load_state.task), BOUND_SECONDS)
    assert broken.state == "ready"
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (ValueError("with a text of a client in it"), "internal_error"),
        (Overloaded("the server 10.0.0.1 is unavailable"), "server_overloaded"),
        (ConfigurationError("runtime 'openvino' is for the CPU"), "cannot_be_loaded"),
    ],
)
async def test_why_it_failed_is_told_in_a_word_without_what_only_operators_may_read(error, category, capfd):
    log.configure(level="info", line_format="json")
    broken = model()
    broken.embedder.breaks_with = error
    await Loader().load(broken)
    assert (broken.state, broken.category) == ("failed", category)
    said = "".join(capfd.readouterr())
    assert "model_failed" in said
    assert "text of a client" not in said


async def test_dimensions_that_there_are_not_are_named_with_those_that_there_are():
    wrong = model(max_dimensions=9)
    with pytest.raises(ConfigurationError, match=r"models\[m\].max_dimensions: 9 cannot be: the model's vectors have 8 dimensions"):
        await wrong.start()
    fine = model(max_dimensions=8)
    await fine.start()
    assert fine.dimensions == 8


async def test_other_vectors_than_the_pinned_ones_are_not_loaded_twice_to_be_looked_at_again():
    pinned = model(fingerprint="e" * 24 + ".fake-float32")
    loader = Loader()
    await loader.load(pinned)
    await loader.load(pinned)
    assert (pinned.state, pinned.category, pinned.embedder.num_starts) == ("failed", "other_fingerprint", 1)


async def test_a_loader_that_is_closed_gives_up_what_it_loads():
    lazy = model(load="first_use")
    loader = Loader()
    lazy.embedder.start_gate.clear()
    task = loader.begin(lazy)
    await lazy.embedder.is_starting.wait()
    await loader.close()
    assert task.cancelled()
