"""A time series of the last ten minutes. Each point is the difference of two metrics snapshots. Taken only while a page polls."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Raw

from gateway.api.page.snapshot import STAGES, WHOLE_SECONDS, MetricsSnapshot, SnapshotInterval, round_figures
from gateway.background import BackgroundTask
from gateway.metrics import Metrics, Reading

INTERVAL_SECONDS = 2.0
KEPT_SECONDS = 600  # of points. They are taken as long after the last poll, so that a page that returns meanwhile finds no gap
NUM_KEPT = round(KEPT_SECONDS / INTERVAL_SECONDS)
NUM_BEHIND = 5  # intervals that rates and quantiles are computed over: two seconds have too few requests
NAMES = frozenset((
    STAGES, WHOLE_SECONDS, "gateway_requests_total", "gateway_inputs_total", "gateway_input_tokens_total",
    "gateway_batch_inputs_sum", "gateway_batch_inputs_count", "gateway_batch_tokens_sum", "gateway_batch_tokens_count",
    "gateway_batch_padding_ratio_sum", "gateway_max_batch_tokens", "gateway_queue_inputs", "gateway_queue_tokens",
    "gateway_backlog_seconds", "gateway_cache_lookups_total", "gateway_rejections_total", "gateway_auth_failures_total",
    "gateway_upstream_requests_total", "gateway_upstream_up",
))  # fmt: skip


class Figures:
    """The points, and the background task that takes them. `clock` is monotonic, in seconds. `routes` are the doors'."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.metrics = metrics
        self.clock = clock
        self.routes: frozenset[str] = frozenset()
        self.readings: deque[MetricsSnapshot] = deque(maxlen=NUM_BEHIND + 1)
        self.points: deque[tuple[int, Raw]] = deque(maxlen=NUM_KEPT)
        self.number = 0
        self.looked_at = clock()
        self.watched_since = round(time.time())  # the start of what is shown
        self.background = BackgroundTask("live-figures", self.watch, may_end=True)

    def look(self) -> None:
        """Called for each poll. Points are taken from now on, until KEPT_SECONDS after the last poll."""
        self.looked_at = self.clock()
        if not self.background.is_running:
            self.metrics.process.background_restarts.labels("live-figures").inc(self.background.death is not None)
            self.readings.clear()
            self.watched_since = round(time.time())
            self.background.start()

    def after(self, number: int) -> list[Raw]:
        return [point for each, point in self.points if each > number]

    async def watch(self) -> None:
        while self.clock() - self.looked_at < KEPT_SECONDS:
            with suppress(TimeoutError):  # a process that does not answer: the next point is over a longer time
                self.take(await self.metrics.samples_of_all(NAMES))
            await asyncio.sleep(INTERVAL_SECONDS)

    def take(self, samples: Iterable[Reading] | None = None) -> None:
        """Takes one snapshot, and adds the point that it makes with those before. `samples` are this process's own by default."""
        samples = self.metrics.samples(NAMES) if samples is None else samples
        self.readings.append(MetricsSnapshot(samples, at=self.clock(), routes=self.routes))
        if len(self.readings) > 1:
            last = SnapshotInterval(self.readings[-2], self.readings[-1])
            told = _point_of(last, SnapshotInterval(self.readings[0], self.readings[-1]))
            self.points.append((self.number, Raw(msgspec.json.encode({"number": self.number, "time": round(time.time()), **told}))))
            self.number += 1

    async def close(self) -> None:
        await self.background.close()


def _point_of(last: SnapshotInterval, behind: SnapshotInterval) -> dict[str, Any]:
    """Returns one point of every chart: rejections of the `last` interval; all else over the intervals `behind` it."""
    now = last.now
    lookups = behind.by_label("gateway_cache_lookups_total")
    return {
        "requests": behind.rate("gateway_requests_total"),
        "texts": behind.rate("gateway_inputs_total"),
        "tokens": behind.rate("gateway_input_tokens_total"),
        "stages": behind.quantiles(),
        "queue_texts": now.total("gateway_queue_inputs"),
        "queue_tokens": now.total("gateway_queue_tokens"),
        "backlog_seconds": round_figures(now.total("gateway_backlog_seconds")),
        "batch_texts": behind.share("gateway_batch_inputs_sum", "gateway_batch_inputs_count"),
        "batch_fill": batch_fill(behind),
        "padding": behind.share("gateway_batch_padding_ratio_sum", "gateway_batch_inputs_count"),
        "cache_hits": round_figures(lookups.get("hit", 0.0) / sum(lookups.values())) if lookups else None,
        "rejections": {**last.by_label("gateway_rejections_total"), **last.by_label("gateway_auth_failures_total")},
        "upstreams": upstreams(behind),
    }


def upstreams(behind: SnapshotInterval) -> dict[str, dict[str, float]]:
    """Returns by upstream whether it is up, its requests per second, and its failures per second. Empty if there are none."""
    states = behind.now.sums["gateway_upstream_up"]
    asked = behind.by_label("gateway_upstream_requests_total")
    found: dict[str, dict[str, float]] = {name: {"up": state, "requests": 0.0, "failures": 0.0} for name, state in states.items()}
    for label, more in asked.items():
        name, _, outcome = label.rpartition("\n")
        one = found.setdefault(name, {"up": 1.0, "requests": 0.0, "failures": 0.0})
        one["requests"] = round_figures(one["requests"] + more / behind.seconds)
        if outcome != "ok":
            one["failures"] = round_figures(one["failures"] + more / behind.seconds)
    return found


def batch_fill(behind: SnapshotInterval) -> float | None:
    """Returns the tokens of the batches that ran, divided by their capacity; None if none ran."""
    batches = behind.by_label("gateway_batch_tokens_count")
    most = sum(num * behind.now.sums["gateway_max_batch_tokens"].get(model, 0.0) for model, num in batches.items())
    return round_figures(behind.more("gateway_batch_tokens_sum") / most) if most else None
