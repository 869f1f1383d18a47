"""Whose turn it is: the bound on any caller's wait, and the shares of busy ones, whatever each was served before."""

import asyncio
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.engine.batcher import Batcher
from gateway.engine.budget import Budget
from gateway.engine.encoder import Window
from gateway.engine.fair_queue import MAX_REMEMBERED, FairQueue, Flow
from gateway.engine.scheduler import PATIENCE, SHARES
from gateway.engine.shape_buckets import Shapes
from gateway.engine.work import Work
from gateway.errors import Overloaded
from gateway.metrics import Metrics

MAX_BATCH_TOKENS = 512
METRICS = Metrics().of_model("m")
LENGTHS = st.integers(1, 64) | st.sampled_from([252, 256, 600])  # the last of them more than a batch may hold


class Traffic:
    """A batcher, whose batches run at once; it counts tokens by caller, and for how many batches each text waited."""

    def __init__(self, *, num_devices=1, shapes=None):
        self.loop = asyncio.new_event_loop()
        self.batcher = Batcher(
            budget=Budget(MAX_BATCH_TOKENS, METRICS),
            max_queue_tokens=10**15,
            metrics=METRICS,
            shapes=shapes or Shapes(length_step=8, is_ladder=True),
            num_devices=num_devices,
        )
        self.served = Counter()
        self.num_batches = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.loop.close()

    def send(self, caller, *lengths, weight=1.0, service_class="interactive"):
        rows = np.empty((len(lengths), 0), np.float32)
        windows = [Window(range(length)) for length in lengths]  # which takes no memory
        done = self.loop.create_future()
        work = Work(caller, windows, rows, self.loop, done, weight=weight, service_class=service_class)
        self.batcher.submit(work)
        return work

    def run(self, num_batches=1):
        for _ in range(num_batches):
            for job in self.batcher.next_batch():
                self.served[job.work.caller] += job.num_tokens
            self.num_batches += 1

    def waiting_tokens(self, caller):
        return sum(work.num_tokens for work in self.batcher.works if work.caller == caller)

    def drain(self):
        while self.batcher.works:
            self.run()

    def wait_of(self, work, *, meanwhile=lambda: None):
        """The number of batches formed until one holds a text of `work`, which has one."""
        before = self.num_batches
        while work.pending:
            meanwhile()
            self.run()
        return self.num_batches - before

    def give_a_past(self, caller, num_tokens):
        """Served through the batcher as ever, in requests of 64 texts."""
        while num_tokens > 0:
            self.send(caller, *([252] * 64))
            num_tokens -= 252 * 64
            self.drain()


PASTS = st.sampled_from([0, 1, 10**3, 10**6, 10**9]) | st.integers(0, 10**9)


@given(
    pasts=st.lists(PASTS, min_size=1, max_size=8),
    is_rested=st.booleans(),
    others=st.lists(st.lists(LENGTHS, min_size=1, max_size=40), max_size=8),
    length=LENGTHS,
    seed=st.integers(0, 10**6),
)
@settings(max_examples=150, deadline=None)
def test_no_caller_with_one_text_waits_for_more_than_four_batches_for_each_that_waits(pasts, is_rested, others, length, seed):
    """All its neighbours send again as soon as they can, in requests of any lengths, some of them callers never seen before."""
    chosen = random.Random(seed)
    with Traffic() as traffic:
        for number, past in enumerate(pasts):
            if past:
                traffic.send(f"caller {number}", past)
                traffic.run()
        traffic.drain()
        if is_rested:
            traffic.batcher.scheduler.rest()
        most = 1

        def flood():
            nonlocal most
            for number, lengths in enumerate(others):
                is_new = chosen.random() < 0.1
                caller = f"newcomer {traffic.num_batches} {number}" if is_new else f"caller {number + 1}"
                if is_new or len(traffic.batcher.callers) < len(others):
                    traffic.send(caller, *chosen.sample(lengths, len(lengths)))
            most = max(most, len(traffic.batcher.callers))

        for _ in range(chosen.randrange(20)):
            flood()
            if traffic.batcher.works:
                traffic.run()
        for _ in range(3):
            most = 1
            work = traffic.send("caller 0", length)
            flood()
            assert traffic.wait_of(work, meanwhile=flood) <= (PATIENCE + 1) * most


@given(
    weights=st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]), min_size=1, max_size=6),
    own=st.sampled_from([0.25, 1.0, 4.0]),
    lengths=st.lists(LENGTHS, min_size=7, max_size=7),
    service_class=st.sampled_from(["interactive", "background"]),
)
@settings(max_examples=60, deadline=None)
def test_with_weights_and_classes_the_wait_is_bounded_as_is_said(weights, own, lengths, service_class):
    with Traffic() as traffic:
        mine = traffic.send("mine", lengths[0], weight=own, service_class=service_class)

        def flood():
            for number, weight in enumerate(weights):
                for name in ("interactive", "background"):
                    if (f"{number} {name}", name) not in traffic.batcher.callers:
                        traffic.send(f"{number} {name}", *([lengths[number + 1]] * 50), weight=weight, service_class=name)

        flood()
        for _ in range(4):
            share = 1 if service_class == "interactive" else SHARES[service_class]
            bound = PATIENCE * (sum(weights) + own) / own / share + 2 * len(weights) + 1
            assert traffic.wait_of(mine, meanwhile=flood) <= bound
            mine = traffic.send("mine", lengths[0], weight=own, service_class=service_class)


@given(
    callers=st.lists(
        st.tuples(
            st.sampled_from([0.5, 1.0, 3.0]),
            PASTS,
            st.lists(st.integers(8, 64) | st.sampled_from([252, 256, 600]), min_size=1, max_size=30),
        ),
        min_size=2,
        max_size=5,
    ),
    num_devices=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_busy_callers_have_shares_by_their_weights(callers, num_devices):
    with Traffic(num_devices=num_devices) as traffic:
        for number, (_, past, _) in enumerate(callers):
            if past:
                traffic.send(str(number), past)
                traffic.run()

        def serve(num_batches):
            target = traffic.served.total() + num_batches * MAX_BATCH_TOKENS * len(callers)
            while traffic.served.total() < target:
                for number, (weight, _, lengths) in enumerate(callers):
                    while traffic.waiting_tokens(str(number)) < 20 * MAX_BATCH_TOKENS:
                        traffic.send(str(number), *(lengths * 30), weight=weight)
                traffic.run()

        serve(30)  # in which debts of up to two batches are paid back
        traffic.served.clear()
        serve(100)
        total = sum(weight for weight, _, _ in callers)
        for number, (weight, _, _) in enumerate(callers):
            assert traffic.served[str(number)] / traffic.served.total() == pytest.approx(weight / total, rel=0.1)


def test_ten_million_tokens_of_past_cost_a_single_text_nothing():
    """The old key's text beside a new key's 8 clients of 64 x 252 tokens."""
    waits = {}
    for past in (0, 10_000_000):
        with Traffic() as traffic:
            traffic.give_a_past("old", past)

            def bulk(traffic=traffic):
                clients = traffic.batcher.callers.get(("new", "interactive"))
                for _ in range(8 - (len(clients.works) if clients else 0)):
                    traffic.send("new", *([252] * 64))

            bulk()
            traffic.run(5)
            waits[past] = [traffic.wait_of(traffic.send("old", 12), meanwhile=bulk) for _ in range(50)]
    assert waits[0] == waits[10_000_000]
    assert max(waits[0]) <= 2


def test_background_work_has_a_tenth_beside_interactive_work_and_all_of_it_alone():
    with Traffic() as traffic:
        for _ in range(40):
            traffic.send("background", *([16] * 2000), service_class="background")
        traffic.run(20)
        assert traffic.served["background"] == 20 * MAX_BATCH_TOKENS
        traffic.served.clear()
        traffic.send("interactive", *([16] * 40_000))
        work = traffic.send("text", 16)
        assert traffic.wait_of(work) <= 2  # what ran alone before does not count
        traffic.run(1000)
        assert traffic.served["background"] / traffic.served.total() == pytest.approx(0.1, rel=0.1)


def test_a_key_has_its_place_in_each_class():
    with Traffic() as traffic:
        traffic.send("a", *([16] * 1000), service_class="background")
        text = traffic.send("a", 16)
        assert traffic.wait_of(text) <= 2


def test_more_callers_than_are_remembered_wait_no_longer():
    with Traffic() as traffic:
        for rounds in range(3):
            for number in range(2 * MAX_REMEMBERED):
                traffic.send(str(number), 64, 252)
            num_callers = len(traffic.batcher.callers) + 1
            text = traffic.send(f"text {rounds % 2}", 16)
            assert traffic.wait_of(text) <= (PATIENCE + 1) * num_callers
            traffic.drain()
            assert all(len(queue.finishes) <= MAX_REMEMBERED for queue in traffic.batcher.scheduler.queues.values())
        assert not traffic.batcher.callers


@pytest.mark.parametrize("num_devices", [1, 2])
async def test_once_every_device_rests_nobody_is_ahead(num_devices):
    with Traffic(num_devices=num_devices) as traffic:
        batcher = traffic.batcher
        traffic.send("old", *([16] * 32))
        traffic.run()
        queue = batcher.scheduler.queues["interactive"]
        assert (queue.clock, queue.finishes) == (0.0, {"old": 512.0})
        resting = [asyncio.create_task(asyncio.to_thread(batcher.next_batch)) for _ in range(num_devices)]
        async with asyncio.timeout(10):
            while batcher.num_resting < num_devices:
                await asyncio.sleep(0.001)
        assert (queue.clock, queue.finishes) == (512.0, {})
        batcher.close(Overloaded())
        assert await asyncio.gather(*resting) == [[]] * num_devices
        assert batcher.num_resting == 0


def test_cancelled_work_is_not_charged():
    with Traffic() as traffic:
        traffic.send("steady", *([16] * 10_000))
        traffic.run(3)
        for _ in range(100):
            traffic.batcher.forget(traffic.send("nervous", *([16] * 1000)))
        traffic.served.clear()
        traffic.send("nervous", *([16] * 1000))
        traffic.run(40)
        assert traffic.served["nervous"] == pytest.approx(traffic.served["steady"], rel=0.1)


def test_a_caller_whose_short_texts_fill_other_batches_does_not_starve_its_long_one():
    """Filling others' batches is served out of turn: its own long text must not wait for that debt."""
    with Traffic(shapes=Shapes()) as traffic:
        long = traffic.send("mixed", 400)
        lengths = [30] * 16

        def flood():
            for name in ("mixed", "other"):
                if traffic.waiting_tokens(name) < 2000:
                    traffic.send(name, *lengths)

        assert traffic.wait_of(long, meanwhile=flood) <= 4 * (PATIENCE + 1) * 2


def test_the_clock_only_moves_forward_and_outlives_idleness():
    queue = FairQueue()
    clocks = []
    for step in range(100):
        flow = Flow("a", 1.0)
        queue.add(flow)
        queue.order()
        clocks.append(queue.clock)
        queue.charge(flow, 10**10, 10**11)
        queue.remove(flow)
        if step % 2:
            queue.rest()
            clocks.append(queue.clock)
    assert clocks == sorted(clocks)
    assert queue.clock == 10**12
    newcomer = Flow("b", 1.0)
    queue.add(newcomer)
    assert newcomer.start == queue.clock


def test_a_token_counts_at_a_clock_of_a_million_million():
    queue = FairQueue()
    one, other = Flow("one", 3.0), Flow("other", 1.0)
    queue.clock = 1e12
    queue.add(one)
    queue.add(other)
    served = Counter()
    for _ in range(40_000):
        first = queue.order()[0]
        queue.charge(first, 1, 1000)
        served[first.key] += 1
    assert served["one"] == pytest.approx(30_000, abs=3)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_a_number_above_zero(weight):
    with Traffic() as traffic, pytest.raises(ValueError, match="a weight of"):
        traffic.send("a", 1, weight=weight)


def test_a_caller_may_change_its_weight_while_it_waits():
    with Traffic() as traffic:
        for name in ("a", "b"):
            traffic.send(name, *([16] * 20_000))
        traffic.run(10)
        traffic.send("a", 16, weight=3.0)
        traffic.served.clear()
        traffic.run(400)
        assert traffic.served["a"] == pytest.approx(3 * traffic.served["b"], rel=0.1)
        assert traffic.batcher.scheduler.queues["interactive"].total_weight == 4.0
