"""Points of the last ten minutes, each made of two readings of the metrics; taken only while somebody looks."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from gateway.api.page.quantile import quantile
from gateway.log import get_logger
from gateway.metrics import Metrics

INTERVAL_SECONDS = 2.0
KEPT_SECONDS = 600  # of points; and as long after the last look they are still taken: who comes back finds no hole in them
NUM_KEPT = round(KEPT_SECONDS / INTERVAL_SECONDS)
NUM_BEHIND = 5  # intervals that quantiles are made of: two seconds alone hold too few requests
QUANTILES = (0.5, 0.95, 0.99)
DIGITS = 5
MILLISECONDS = 1000
WHOLE = "whole"  # the stage that is the sum of all
STAGES, WHOLE_SECONDS = "gateway_stage_duration_seconds_bucket", "gateway_http_request_duration_seconds_bucket"
ROUTE = "/v1/embeddings"
NAMES = (
    STAGES, WHOLE_SECONDS, "gateway_requests_total", "gateway_inputs_total", "gateway_input_tokens_total",
    "gateway_batch_inputs_sum", "gateway_batch_inputs_count", "gateway_batch_tokens_sum", "gateway_batch_tokens_count",
    "gateway_batch_padding_ratio_sum", "gateway_max_batch_tokens", "gateway_queue_inputs", "gateway_queue_tokens",
    "gateway_backlog_seconds", "gateway_cache_lookups_total", "gateway_rejections_total", "gateway_auth_failures_total",
    "gateway_upstream_requests_total", "gateway_upstream_up",
)  # fmt: skip

log = get_logger()


class Reading:
    """What the metrics said at one moment. `sums[name][label]` adds up all models; `at` is in seconds, of any clock."""

    def __init__(self, samples: Iterable[tuple[str, dict[str, str], float]], *, at: float) -> None:
        self.at = at
        self.sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for name, labels, value in samples:
            if name == STAGES:
                self.buckets[labels["stage"]][float(labels["le"])] += value
            elif name == WHOLE_SECONDS:
                if labels["route"] == ROUTE:
                    self.buckets[WHOLE][float(labels["le"])] += value
            else:
                self.sums[name][labels.get("reason") or labels.get("result") or upstream_of(labels) or ""] += value

    def total(self, name: str) -> float:
        return sum(self.sums[name].values())


class Span:
    """What happened between two readings."""

    def __init__(self, before: Reading, now: Reading) -> None:
        self.before, self.now = before, now
        self.seconds = max(now.at - before.at, 1e-9)

    def more(self, name: str) -> float:
        return self.now.total(name) - self.before.total(name)

    def rate(self, name: str) -> float:
        return rounded(self.more(name) / self.seconds)

    def share(self, part: str, whole: str) -> float | None:
        """How much more of one there was for each of the other; None where there was none of it."""
        more = self.more(whole)
        return rounded(self.more(part) / more) if more > 0 else None

    def by_label(self, name: str) -> dict[str, float]:
        """What grew, by label."""
        before = self.before.sums[name]
        grown = {label: value - before.get(label, 0.0) for label, value in self.now.sums[name].items()}
        return {label: more for label, more in grown.items() if more > 0}

    def quantiles(self) -> dict[str, list[float]]:
        """Milliseconds by stage, in the order of QUANTILES; only of stages that something passed."""
        found = {}
        for stage, buckets in self.now.buckets.items():
            before = self.before.buckets[stage]
            more = [(bound, count - before.get(bound, 0.0)) for bound, count in sorted(buckets.items())]
            if more and more[-1][1] > 0:
                found[stage] = [rounded(MILLISECONDS * quantile(q, more)) for q in QUANTILES]
        return found


class Figures:
    """The points, and the task that takes them. `clock` counts seconds and never goes back."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.metrics = metrics
        self.clock = clock
        self.readings: deque[Reading] = deque(maxlen=NUM_BEHIND + 1)
        self.points: deque[tuple[int, orjson.Fragment]] = deque(maxlen=NUM_KEPT)
        self.number = 0
        self.looked_at = clock()
        self.task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Somebody looks: points are taken from now on, until nobody has looked for as long as they are kept."""
        self.looked_at = self.clock()
        if self.task is None or self.task.done():
            if self.task is not None and not self.task.cancelled() and (error := self.task.exception()):
                log.error("live_figures_failed", exc_info=error)
            self.readings.clear()
            self.task = asyncio.create_task(self.watch(), name="live-figures")

    def after(self, number: int) -> list[orjson.Fragment]:
        return [point for each, point in self.points if each > number]

    async def watch(self) -> None:
        while self.clock() - self.looked_at < KEPT_SECONDS:
            self.take()
            await asyncio.sleep(INTERVAL_SECONDS)

    def take(self) -> None:
        """One more reading, and the point it makes with those before."""
        self.readings.append(Reading(self.metrics.samples(NAMES), at=self.clock()))
        if len(self.readings) > 1:
            last = Span(self.readings[-2], self.readings[-1])
            told = point_of(last, Span(self.readings[0], self.readings[-1]))
            self.points.append((self.number, orjson.Fragment(orjson.dumps({"number": self.number, "time": round(time.time()), **told}))))
            self.number += 1

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)


def point_of(last: Span, behind: Span) -> dict[str, Any]:
    """One point of every chart: what happened in the `last` interval; times over all intervals `behind` it."""
    now = last.now
    lookups = last.by_label("gateway_cache_lookups_total")
    batch_tokens = last.share("gateway_batch_tokens_sum", "gateway_batch_tokens_count")
    max_batch_tokens = max(now.sums["gateway_max_batch_tokens"].values(), default=0.0)
    return {
        "requests": last.rate("gateway_requests_total"),
        "texts": last.rate("gateway_inputs_total"),
        "tokens": last.rate("gateway_input_tokens_total"),
        "stages": behind.quantiles(),
        "queue_texts": now.total("gateway_queue_inputs"),
        "queue_tokens": now.total("gateway_queue_tokens"),
        "backlog_seconds": rounded(now.total("gateway_backlog_seconds")),
        "batch_texts": last.share("gateway_batch_inputs_sum", "gateway_batch_inputs_count"),
        "batch_fill": rounded(batch_tokens / max_batch_tokens) if batch_tokens and max_batch_tokens else None,
        "padding": last.share("gateway_batch_padding_ratio_sum", "gateway_batch_inputs_count"),
        "cache_hits": rounded(lookups.get("hit", 0.0) / sum(lookups.values())) if lookups else None,
        "rejections": {**last.by_label("gateway_rejections_total"), **last.by_label("gateway_auth_failures_total")},
        "upstreams": upstreams(last),
    }


def upstreams(last: Span) -> dict[str, dict[str, float]]:
    """By upstream: whether it is up, its requests a second, and those of them that failed. Empty where there are none."""
    states = last.now.sums["gateway_upstream_up"]
    asked = last.by_label("gateway_upstream_requests_total")
    found: dict[str, dict[str, float]] = {name: {"up": state, "requests": 0.0, "failures": 0.0} for name, state in states.items()}
    for label, more in asked.items():
        name, _, outcome = label.rpartition("\n")
        one = found.setdefault(name, {"up": 1.0, "requests": 0.0, "failures": 0.0})
        one["requests"] = rounded(one["requests"] + more / last.seconds)
        if outcome != "ok":
            one["failures"] = rounded(one["failures"] + more / last.seconds)
    return found


def upstream_of(labels: dict[str, str]) -> str:
    """The label of an upstream's series; of its requests with the outcome behind it."""
    if "upstream" not in labels:
        return ""
    return f"{labels['upstream']}\n{labels['outcome']}" if "outcome" in labels else labels["upstream"]


def rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
