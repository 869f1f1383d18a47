"""The sum of several processes' metrics is what one process would have counted, and no count ever falls."""

import asyncio
from itertools import permutations

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from gateway.config import listen_addresses
from gateway.metrics import Metrics
from gateway.metrics.declaration import MetricDeclaration
from gateway.metrics.snapshot import snapshot
from gateway.metrics.sum import MetricSum
from gateway.server.listening import Listening


class Process:
    """A process with one metric of each kind and rule."""

    def __init__(self):
        self.declare = MetricDeclaration(CollectorRegistry())
        self.asked = self.declare.count("asked_total", "Asked.", ["reason"])
        self.seconds = self.declare.histogram("seconds", "Seconds.", ["route"], buckets=(1, 2))
        self.open, self.lag, self.since, self.queue = (
            self.declare.gauge(name, "A gauge.", merge=merge)
            for name, merge in [("open", "sum"), ("lag", "max"), ("since", "min"), ("queue", "engine")]
        )

    def families(self):
        return snapshot(self.declare.registry, self.declare.merges)


def values(total):
    return {(name, *sorted(labels.items())): value for family in total.total() for name, labels, value in family.samples}


@pytest.fixture
def processes():
    return {"front-0": Process(), "front-1": Process(), "engine": Process()}


def summed(processes):
    total = MetricSum()
    for name, process in processes.items():
        total.put(name, process.families())
    return total


def test_a_sum_of_seconds_is_the_same_to_the_bit_in_whatever_order_processes_end(processes):
    for tenths, process in enumerate(processes.values(), start=1):
        process.asked.labels("a").inc(tenths / 10)
        process.seconds.labels("/").observe(tenths / 10)
    for order in permutations(processes):
        total = summed(processes)
        before = {key: value for key, value in values(total).items() if key[0] not in {"open", "lag", "since", "queue"}}
        for name in order:
            total.end(name)
            assert values(total).items() >= before.items()


def test_counters_and_histograms_are_added_by_label(processes):
    processes["front-0"].asked.labels("a").inc(2)
    processes["front-1"].asked.labels("a").inc(3)
    processes["front-1"].asked.labels("b").inc()
    for seconds, name in [(0.5, "front-0"), (1.5, "front-1"), (9, "engine")]:
        processes[name].seconds.labels("/").observe(seconds)
    found = values(summed(processes))
    assert found["asked_total", ("reason", "a")] == 5
    assert found["asked_total", ("reason", "b")] == 1
    assert [found["seconds_bucket", ("le", le), ("route", "/")] for le in ("1.0", "2.0", "+Inf")] == [1, 2, 3]
    assert found["seconds_count", ("route", "/")] == 3
    assert found["seconds_sum", ("route", "/")] == 11


def test_gauges_are_merged_by_their_rule(processes):
    for number, process in enumerate(processes.values(), 1):
        for gauge in (process.open, process.lag, process.since, process.queue):
            gauge.set(number)
    found = values(summed(processes))
    assert [found[name,] for name in ("open", "lag", "since", "queue")] == [6, 3, 1, 3]


def test_what_a_process_counted_is_kept_when_it_ends_and_its_gauges_are_not(processes):
    total = MetricSum()
    for round_number in range(3):  # three processes in one place, one after another
        process = Process()
        process.asked.labels("a").inc(10)
        process.seconds.labels("/").observe(0.5)
        process.open.set(7)
        total.put("front-0", process.families())
        assert values(total)["asked_total", ("reason", "a")] == 10 * (round_number + 1)
        total.end("front-0")
    found = values(total)
    assert found["asked_total", ("reason", "a")] == 30
    assert found["seconds_bucket", ("le", "1.0"), ("route", "/")] == 3
    assert ("open",) not in found
    total.end("front-0")  # twice, or without a snapshot
    assert values(total) == found


def test_a_later_snapshot_replaces_the_one_before(processes):
    total = summed(processes)
    processes["engine"].asked.labels("a").inc(4)
    for _ in range(2):
        total.put("engine", processes["engine"].families())
    assert values(total)["asked_total", ("reason", "a")] == 4


@pytest.fixture
def two():
    """The metrics of two processes; the first shows the sum of both."""
    shown, other = Metrics(), Metrics()

    async def gather():
        total = MetricSum()
        total.put("engine", shown.snapshot())
        total.put("front-0", other.snapshot())
        return total.total()

    shown.gather = gather
    shown.access.auth_failures.labels("a").inc(1)
    other.access.auth_failures.labels("a").inc(2)
    return shown


def series(text):
    return [(each.name, *sorted(each.labels.items())) for family in text_string_to_metric_families(text) for each in family.samples]


async def test_the_text_of_metrics_has_each_series_once_and_the_same_as_in_one_process(two):
    text = (await two.exposition_of_all()).decode()
    assert 'gateway_auth_failures_total{reason="a"} 3.0' in text.splitlines()
    found = series(text)
    assert len(set(found)) == len(found)
    assert set(found) == set(series(two.exposition().decode()))
    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert heads == [line for line in two.exposition().decode().splitlines() if line.startswith("#")]
    assert ("gateway_auth_failures_total", {"reason": "a"}, 3.0) in [*await two.samples_of_all({"gateway_auth_failures_total"})]


async def test_the_metrics_own_port_shows_the_sum(two):
    listening = Listening(listen_addresses("127.0.0.1"), 0)
    two.serve(listening.sockets)
    try:

        def get(path):
            return httpx.get(f"{listening.urls[0]}{path}", timeout=30).text

        assert 'gateway_auth_failures_total{reason="a"} 3.0' in await asyncio.to_thread(get, "/metrics")
        one = await asyncio.to_thread(get, "/metrics?name[]=gateway_auth_failures_total")
        assert [line for line in one.splitlines() if not line.startswith("#")] == ['gateway_auth_failures_total{reason="a"} 3.0']
    finally:
        await asyncio.to_thread(two.close)
