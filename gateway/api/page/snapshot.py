"""Metrics snapshots, and their difference between two moments."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from gateway.api.page.quantile import quantile

QUANTILES = (0.5, 0.95, 0.99)
DIGITS = 5
MILLISECONDS = 1000
WHOLE = "whole"  # the stage that is the sum of all
STAGES, WHOLE_SECONDS = "gateway_stage_duration_seconds_bucket", "gateway_http_request_duration_seconds_bucket"


class MetricsSnapshot:
    """The metrics at one moment, `at` in seconds of any clock. Of `routes` the time of a whole request is read.

    `sums[name][label]` are by reason, result or upstream; by model if a metric has none of these. `buckets[stage]` sum all models.
    """

    def __init__(self, samples: Iterable[tuple[str, dict[str, str], float]], *, at: float, routes: Collection[str]) -> None:
        self.at = at
        self.sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.buckets: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for name, labels, value in samples:
            if name == STAGES:
                self.buckets[labels["stage"]][float(labels["le"])] += value
            elif name == WHOLE_SECONDS:
                if labels["route"] in routes:
                    self.buckets[WHOLE][float(labels["le"])] += value
            else:
                self.sums[name][_label_of(labels)] += value

    def total(self, name: str) -> float:
        return sum(self.sums[name].values())


class SnapshotInterval:
    """The difference between two snapshots."""

    def __init__(self, before: MetricsSnapshot, now: MetricsSnapshot) -> None:
        self.before, self.now = before, now
        self.seconds = max(now.at - before.at, 1e-9)

    def more(self, name: str) -> float:
        return self.now.total(name) - self.before.total(name)

    def rate(self, name: str) -> float:
        return round_figures(self.more(name) / self.seconds)

    def share(self, part: str, whole: str) -> float | None:
        """Returns the increase of `part` divided by that of `whole`; None if `whole` did not increase."""
        more = self.more(whole)
        return round_figures(self.more(part) / more) if more > 0 else None

    def by_label(self, name: str) -> dict[str, float]:
        """Returns the increases above 0, by label."""
        before = self.before.sums[name]
        grown = {label: value - before.get(label, 0.0) for label, value in self.now.sums[name].items()}
        return {label: more for label, more in grown.items() if more > 0}

    def quantiles(self) -> dict[str, list[float]]:
        """Returns milliseconds by stage, in the order of QUANTILES; only for stages that requests have passed."""
        found = {}
        for stage, buckets in self.now.buckets.items():
            before = self.before.buckets[stage]
            more = [(bound, count - before.get(bound, 0.0)) for bound, count in sorted(buckets.items())]
            if more and more[-1][1] > 0:
                found[stage] = [round_figures(MILLISECONDS * quantile(q, more)) for q in QUANTILES]
        return found


def _label_of(labels: dict[str, str]) -> str:
    """Returns the label of a series: for an upstream's requests its name, a line feed and the outcome."""
    if "upstream" in labels:
        return f"{labels['upstream']}\n{labels['outcome']}" if "outcome" in labels else labels["upstream"]
    return labels.get("reason") or labels.get("result") or labels.get("model", "")


def round_figures(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
