"""The points of the charts are what the metrics say, are bounded, and are taken only while somebody looks."""

import asyncio

import msgspec
import pytest

from gateway.api.page.figures import KEPT_SECONDS, NUM_KEPT, Figures
from gateway.api.page.quantile import quantile
from gateway.metrics import Metrics
from gateway.metrics.model import QueueFigures
from gateway.testing.fakes import FakeClock

INFINITY = float("inf")


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def figures(metrics, clock):
    figures = Figures(metrics, clock)
    figures.routes = frozenset({"/v1/embeddings"})
    figures.take()
    return figures


def points(figures):
    return msgspec.json.decode(msgspec.json.encode(figures.after(-1)))


def test_rates_are_what_was_counted_over_the_time_that_passed(figures, metrics, clock):
    for _ in range(6):
        metrics.of_model("m").record_embedding([10, 20], {})
        metrics.models.record_outcome("m", "ok")
    metrics.of_model("n").record_embedding([30], {})
    clock.advance(2)
    figures.take()
    (point,) = points(figures)
    assert (point["requests"], point["texts"], point["tokens"]) == (3, 6.5, 105)


def test_rates_are_made_of_the_last_ten_seconds(figures, metrics, clock):
    metrics.of_model("m").record_embedding([1] * 20, {})
    for _ in range(6):
        clock.advance(2)
        figures.take()
    assert [point["texts"] for point in points(figures)] == [10, 5, 3.3333, 2.5, 2, 0]


def test_times_are_told_by_stage_and_only_of_stages_that_were_passed(figures, metrics, clock):
    metrics.of_model("m").record_embedding([1], {"tokenize": 0.0004, "compute": 0.02})
    metrics.http.record_response("/v1/embeddings", "POST", "200", seconds=0.03)
    metrics.http.record_response("/", "GET", "200", seconds=200)
    clock.advance(2)
    figures.take()
    (point,) = points(figures)
    assert set(point["stages"]) == {"tokenize", "compute", "whole"}
    assert 10 <= point["stages"]["compute"][0] <= 25
    assert point["stages"]["whole"][2] <= 50
    assert [low <= high for low, _, high in point["stages"].values()] == [True] * 3


def test_batches_cache_and_queue_are_shares_of_what_there_was(figures, metrics, clock):
    model = metrics.of_model("m")
    model.max_batch_tokens.set(512)
    model.record_batch(num_inputs=4, padded_tokens=384, real_tokens=320)
    model.record_batch(num_inputs=2, padded_tokens=128, real_tokens=128)
    model.record_lookups(hit=3, miss=1)
    model.watch_queue(QueueFigures(num_inputs=7, num_tokens=70, backlog_seconds=0.5))
    metrics.of_model("larger").max_batch_tokens.set(4096)
    clock.advance(2)
    figures.take()
    (point,) = points(figures)
    assert (point["batch_fill"], point["batch_texts"], point["padding"]) == (0.5, 3, 1.1)
    assert point["cache_hits"] == 0.75
    assert (point["queue_texts"], point["queue_tokens"], point["backlog_seconds"]) == (7, 70, 0.5)


def test_where_nothing_happened_there_is_nothing_to_share(figures, clock):
    clock.advance(2)
    figures.take()
    (point,) = points(figures)
    assert [point[name] for name in ("batch_fill", "batch_texts", "padding", "cache_hits")] == [None] * 4
    assert (point["requests"], point["stages"], point["rejections"], point["upstreams"]) == (0, {}, {}, {})


def test_refusals_are_told_by_reason_once(figures, metrics, clock):
    metrics.http.rejections.labels("server_overloaded").inc(3)
    metrics.access.auth_failures.labels("invalid_api_key").inc()
    for _ in range(2):
        clock.advance(2)
        figures.take()
    assert [point["rejections"] for point in points(figures)] == [{"server_overloaded": 3, "invalid_api_key": 1}, {}]


def test_upstreams_are_told(figures, metrics, clock):
    asked, state = metrics.upstreams.requests, metrics.upstreams.up
    for name, up in (("a", 1), ("b", 0)):
        state.labels(name).set(up)
        asked.labels(name, "ok")
    clock.advance(2)
    figures.take()
    asked.labels("a", "ok").inc(8)
    asked.labels("a", "timeout").inc(4)
    clock.advance(2)
    figures.take()
    assert points(figures)[-1]["upstreams"] == {
        "a": {"up": 1, "requests": 3, "failures": 1},
        "b": {"up": 0, "requests": 0, "failures": 0},
    }


def test_only_ten_minutes_are_kept(figures, clock):
    for _ in range(NUM_KEPT + 50):
        clock.advance(2)
        figures.take()
    kept = points(figures)
    assert len(kept) == NUM_KEPT
    assert kept[-1]["number"] - kept[0]["number"] == NUM_KEPT - 1
    assert len(figures.readings) < 10


async def test_nothing_is_taken_until_somebody_looks(metrics, clock):
    figures = Figures(metrics, clock)
    await asyncio.sleep(0)
    assert not figures.background.is_running
    figures.look()
    await asyncio.sleep(0)
    assert len(figures.readings) == 1
    await figures.close()
    assert not figures.background.is_running


async def test_nobody_having_looked_for_as_long_as_points_are_kept_ends_it(figures, clock):
    clock.advance(KEPT_SECONDS)
    await asyncio.wait_for(figures.watch(), 1)


async def test_a_watch_that_died_is_begun_again_by_the_next_look_and_counted(figures, monkeypatch, capfd):
    monkeypatch.setattr(figures, "take", failing)
    figures.look()
    await figures.background.wait_ended()
    assert capfd.readouterr().out.count("task_died") == 1
    monkeypatch.undo()
    figures.look()
    assert figures.background.is_running
    labels = {"task": "live-figures"}
    assert figures.metrics.registry.get_sample_value("gateway_background_restarts_total", labels) == 1
    await figures.close()


def failing():
    raise RuntimeError


@pytest.mark.parametrize(("q", "expected"), [(0.5, 1.5), (0.25, 0.75), (0.75, 2.5), (0.99, 3.94)])
def test_quantiles_are_prometheus_own(q, expected):
    """Four at most 1, four more at most 2, four more at most 4: histogram_quantile gives these."""
    assert quantile(q, [(1, 4), (2, 8), (4, 12), (INFINITY, 12)]) == pytest.approx(expected)


def test_beyond_the_last_bound_a_quantile_is_that_bound():
    assert quantile(0.99, [(1, 0), (INFINITY, 5)]) == 1
    assert quantile(0.5, [(1, 0), (2, 0), (4, 3), (INFINITY, 3)]) == 3
