"""The memory budget: who is loaded, who goes, and who waits."""

import asyncio
import time

import pytest

from gateway.config import ModelRow
from gateway.embedding.catalog import Catalog
from gateway.embedding.loading import RETRIES, Loader
from gateway.embedding.model import Model
from gateway.embedding.model_use import closing_use
from gateway.errors import ConfigurationError, ModelLoading, ModelUnavailable, OperatorError
from gateway.testing.fakes import FakeClock, FakeLocalEmbedder

BOUND_SECONDS = 10


def model(name, num_bytes=100, *, load="first_use", embedder=None, **row):
    local = embedder or FakeLocalEmbedder(num_bytes)
    return Model(ModelRow(name=name, load=load, **row), local, local)


class Served:
    """A catalog with a budget, on a clock that stands still; `events` are its loads and unloads."""

    def __init__(self, *models, max_bytes=0):
        self.events = []
        self.clock = FakeClock()
        self.loader = Loader(
            lambda each: self.events.append(f"+{each.name} {each.load_state.reason}"),
            lambda each, reason: self.events.append(f"-{each.name} {reason}"),
            clock=self.clock,
        )
        self.loader.budget.max_bytes = max_bytes
        self.catalog = Catalog(models, self.loader)

    async def use(self, name, *, seconds=BOUND_SECONDS):
        return await self.catalog.acquire(self.catalog.find(name), name, deadline=time.monotonic() + seconds)

    async def ask(self, name, *, seconds=BOUND_SECONDS):
        """A request that is answered at once."""
        with closing_use(await self.use(name, seconds=seconds)):
            assert self.catalog.find(name).state == "ready"

    def embedder(self, name):
        return self.catalog.find(name).built

    def states(self):
        return {each.name: each.state for each in self.catalog.models}


async def until(condition):
    async with asyncio.timeout(BOUND_SECONDS):
        while not condition():
            await asyncio.sleep(0)


async def test_a_model_is_unloaded_after_its_idle_time_and_loaded_again_by_the_next_request():
    served = Served(model("a", unload_after=60), model("stays"))
    await served.ask("a")
    await served.ask("stays")
    served.clock.advance(59)
    await served.ask("a")  # idle from here on
    served.clock.advance(59)
    await served.loader.unload_idle()
    assert served.states() == {"a": "ready", "stays": "ready"}
    served.clock.advance(1)
    await served.loader.unload_idle()
    assert served.states() == {"a": "unloaded", "stays": "ready"}
    assert served.catalog.ready  # it can be asked
    await served.ask("a")
    assert served.events == ["+a request", "+stays request", "-a idle", "+a request"]


async def test_a_model_that_is_unloaded_for_two_reasons_at_once_goes_once_and_a_request_meanwhile_loads_it_after():
    served = Served(model("a", unload_after=1), model("b"), max_bytes=100)
    await served.ask("a")
    served.clock.advance(20)
    gone, unload = asyncio.Event(), served.embedder("a").unload

    async def slow_unload():
        await unload()
        await gone.wait()

    served.embedder("a").unload = slow_unload
    idle = asyncio.create_task(served.loader.unload_idle())
    await until(lambda: served.embedder("a").num_unloads == 1)
    others = [asyncio.create_task(served.ask(name)) for name in "ba"]
    for _ in range(20):
        await asyncio.sleep(0)
    assert served.events == ["+a request"]
    gone.set()
    await idle
    await others[0]
    served.clock.advance(20)
    await others[1]
    assert served.events == ["+a request", "-a idle", "+b request", "-b budget", "+a request"]


async def test_a_model_with_a_request_or_a_batch_is_not_unloaded_however_long_that_takes():
    served = Served(model("a", unload_after=60))
    use = await served.use("a")
    served.clock.advance(1000)
    await served.loader.unload_idle()
    assert served.states() == {"a": "ready"}
    with served.loader.keep(served.catalog.models):
        use.release()
        served.clock.advance(1000)
        await served.loader.unload_idle()
        assert served.states() == {"a": "ready"}
    await served.loader.unload_idle()
    assert served.states() == {"a": "unloaded"}


async def test_the_least_recently_used_idle_model_makes_room():
    served = Served(model("a"), model("b"), model("c"), max_bytes=200)
    await served.ask("a")
    served.clock.advance(20)
    await served.ask("b")
    served.clock.advance(20)
    await served.ask("a")
    served.clock.advance(20)
    await served.ask("c")
    assert served.states() == {"a": "ready", "b": "unloaded", "c": "ready"}
    assert served.loader.budget.excess() == 0


async def test_a_busy_model_is_passed_over_though_it_was_used_least_recently():
    served = Served(model("a"), model("b"), model("c"), max_bytes=200)
    busy = await served.use("a")
    served.clock.advance(20)
    await served.ask("b")
    served.clock.advance(20)
    await served.ask("c")
    assert served.states() == {"a": "ready", "b": "unloaded", "c": "ready"}
    busy.release()


async def test_a_model_loaded_at_the_start_never_goes():
    served = Served(model("s", load="start"), model("b"), model("c"), max_bytes=200)
    await served.loader.load(served.catalog.find("s"))
    for name in ("b", "c", "b"):
        served.clock.advance(20)
        await served.ask(name)
    assert served.states() == {"s": "ready", "b": "ready", "c": "unloaded"}
    assert served.embedder("s").num_unloads == 0


async def test_where_all_are_busy_the_request_waits_for_one_to_end_and_further_requests_for_that_one_behind_it():
    served = Served(model("a"), model("b"), max_bytes=100)
    first = await served.use("a")
    served.clock.advance(20)
    second = asyncio.create_task(served.use("b"))
    await until(lambda: served.catalog.find("a").load_state.is_leaving)
    third = asyncio.create_task(served.use("a"))  # would keep "a" loaded for ever, if it were let in
    await asyncio.sleep(0)
    assert served.states()["a"] == "ready"  # its request still runs
    first.release()
    use = await second
    assert (served.states(), third.done()) == ({"a": "loading", "b": "ready"}, False)
    served.clock.advance(20)
    use.release()
    (await third).release()
    assert served.events == ["+a request", "-a budget", "+b request", "-b budget", "+a request"]


async def test_two_models_asked_in_turn_are_both_answered_and_neither_is_driven_out_while_its_load_is_younger_than_it_took():
    served = Served(model("a"), model("b"), max_bytes=100)
    await served.ask("a")
    served.catalog.find("a").load_state.load_seconds = 5.0
    other = asyncio.create_task(served.ask("b"))
    await until(lambda: served.embedder("b").num_plans == 1)
    await served.ask("a")
    assert not other.done()
    served.clock.advance(5)
    await asyncio.wait_for(other, BOUND_SECONDS)
    for name in ("a", "b") * 3:
        served.clock.advance(20)
        await served.ask(name)
    assert served.states() == {"a": "unloaded", "b": "ready"}


async def test_a_burst_for_two_models_takes_few_loads_and_answers_everybody():
    served = Served(model("a"), model("b"), max_bytes=100)

    async def ask(number):
        with closing_use(await served.use("ab"[number % 2])):
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(number)) for number in range(100)]
        while not all(task.done() for task in tasks):
            served.clock.advance(1)
            await asyncio.sleep(0)
    assert len([event for event in served.events if event.startswith("+")]) <= 4


async def test_loads_are_one_at_a_time_in_the_order_of_their_requests_and_those_at_the_start_among_them():
    names = [f"m{number}" for number in range(200)]
    served = Served(*(model(name, load="start" if name == "m0" else "first_use") for name in names), max_bytes=2000)
    for name in names:
        served.embedder(name).start_gate.clear()
    tasks = [asyncio.create_task(served.loader.load(served.catalog.find("m0")))]
    tasks += [asyncio.create_task(served.ask(name)) for name in names[1:]]
    for name in names:
        await asyncio.wait_for(served.embedder(name).is_starting.wait(), BOUND_SECONDS)
        assert (
            sum(served.embedder(each).is_starting.is_set() and not served.embedder(each).start_gate.is_set() for each in names) == 1
        )
        served.embedder(name).start_gate.set()
        served.clock.advance(20)
    await asyncio.gather(*tasks)
    assert [event for event in served.events if event.startswith("+")] == ["+m0 start", *(f"+{name} request" for name in names[1:])]
    assert sum(each.state == "ready" for each in served.catalog.models) == 20


async def test_a_request_waits_no_longer_than_its_deadline_and_a_load_that_nobody_waits_for_drives_nobody_out():
    served = Served(model("a"), model("b"), max_bytes=100)
    busy = await served.use("a")
    served.clock.advance(20)
    with pytest.raises(ModelLoading) as caught:
        await served.use("b", seconds=0.01)
    assert int(caught.value.headers()["Retry-After"]) >= 1
    left = asyncio.create_task(served.use("b"))
    await until(lambda: served.catalog.find("a").load_state.is_leaving)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    await until(lambda: not served.catalog.find("a").load_state.is_leaving)
    await served.ask("a")  # is let in again
    busy.release()
    await asyncio.sleep(0)
    assert served.states() == {"a": "ready", "b": "unloaded"}
    assert (served.embedder("a").num_unloads, served.embedder("b").num_starts) == (0, 0)


async def test_a_model_that_a_batch_keeps_lets_others_be_refused_at_once():
    served = Served(model("a"), model("b"), max_bytes=100)
    await served.ask("a")
    served.clock.advance(20)
    with served.loader.keep([served.catalog.find("a")]):
        with pytest.raises(ModelLoading):
            await served.ask("b")
        assert served.states() == {"a": "ready", "b": "unloaded"}
    await served.ask("b")


async def test_a_model_larger_than_the_budget_is_refused_before_it_is_loaded_and_tried_again_once_the_budget_is_larger():
    served = Served(model("s", load="start"), model("big", 350), max_bytes=400)
    await served.loader.load(served.catalog.find("s"))
    with pytest.raises(ModelUnavailable):
        await served.ask("big")
    big = served.catalog.find("big")
    assert str(big.load_state.failure) == (
        "models[big]: it takes 350 bytes, and engine.memory_budget is 400, of which models that stay loaded take 100"
    )
    assert (big.category, served.embedder("big").num_starts, served.catalog.ready) == ("memory_budget", 0, True)
    served.loader.adopt(served.catalog.models, 450)
    await served.ask("big")
    assert big.state == "ready"


async def test_a_model_that_turns_out_larger_than_the_budget_is_unloaded_again():
    served = Served(model("big", embedder=FakeLocalEmbedder(350, planned_bytes=0)), max_bytes=300)
    with pytest.raises(ModelUnavailable):
        await served.ask("big")
    assert served.embedder("big").num_unloads == 1
    assert served.states() == {"big": "failed"}
    assert served.loader.budget.loaded == {}


async def test_a_model_for_the_start_that_does_not_fit_is_an_error_of_the_configuration():
    served = Served(model("s", 200, load="start"), max_bytes=100)
    await served.loader.load(served.catalog.find("s"))
    assert isinstance(served.catalog.find("s").load_state.failure, ConfigurationError)


async def test_a_smaller_budget_takes_effect_at_once_for_idle_models_and_later_for_busy_ones():
    served = Served(model("a"), model("b"), model("c"), max_bytes=300)
    busy = await served.use("a")
    for name in "bc":
        served.clock.advance(20)
        await served.ask(name)
    served.loader.adopt(served.catalog.models, 100)
    await served.loader.unload_idle()
    assert served.states() == {"a": "ready", "b": "unloaded", "c": "unloaded"}
    row = ModelRow(name="a", load="start")
    served.loader.budget.adopt([Model(row, busy.model.embedder, busy.model.built, busy.model.load_state)])
    loaded = served.loader.budget.loaded.values()
    with pytest.raises(ConfigurationError, match=r"engine\.memory_budget: models that stay loaded take 100 bytes of its 50"):
        served.loader.budget.refuse_excess(loaded, 50)


async def test_a_model_that_cannot_be_loaded_again_says_why_and_is_tried_again_with_backoff():
    served = Served(model("a", unload_after=1))
    await served.ask("a")
    served.clock.advance(2)
    await served.loader.unload_idle()
    served.embedder("a").fails_with = "its weights are missing"
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            await served.ask("a")
    a = served.catalog.find("a")
    assert (a.state, str(a.load_state.failure), served.embedder("a").num_starts) == ("failed", "its weights are missing", 2)
    served.embedder("a").fails_with = None
    served.clock.advance(RETRIES.first_seconds)
    await served.ask("a")
    assert served.events[-1] == "+a retry"


async def test_pinned_vectors_are_checked_at_each_load_and_others_do_not_stay_in_memory():
    served = Served(model("a", unload_after=1, fingerprint="f" * 24 + ".fake-float32"))
    await served.ask("a")
    served.clock.advance(2)
    await served.loader.unload_idle()
    served.embedder("a").fingerprint = "e" * 24 + ".fake-float32"
    with pytest.raises(ModelUnavailable):
        await served.ask("a")
    assert served.catalog.find("a").category == "other_fingerprint"
    assert served.embedder("a").num_unloads == 2


async def test_models_that_a_new_configuration_replaces_are_not_counted_beside_their_successors():
    served = Served(model("a", load="start"), max_bytes=150)
    await served.loader.load(served.catalog.find("a"))
    successor = model("a", load="start")
    served.catalog.find("a").load_state.is_replaced = True
    await served.loader.load(successor)
    assert successor.state == "ready"


async def test_the_end_of_a_gateway_ends_loads_that_wait_for_room():
    served = Served(model("a"), model("b"), max_bytes=100)
    busy = await served.use("a")
    served.clock.advance(20)
    waiting = asyncio.create_task(served.use("b"))
    await until(lambda: served.catalog.find("a").load_state.is_leaving)
    await served.loader.close()
    with pytest.raises((ModelLoading, ModelUnavailable, asyncio.CancelledError)):
        await asyncio.wait_for(waiting, BOUND_SECONDS)
    busy.release()


def test_unload_after_is_for_models_that_are_loaded_on_first_use():
    with pytest.raises(ValueError, match=r"unload_after of the model 'a' needs load = 'first_use'"):
        ModelRow(name="a", unload_after=5.0)
    assert issubclass(ConfigurationError, OperatorError)
