"""A quantile of a histogram, as Prometheus's `histogram_quantile` computes it."""

from collections.abc import Sequence
from itertools import pairwise


def quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float:
    """Linear interpolation: values are assumed to be spread evenly within a bucket. Source:
    https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile

    `buckets` are (upper bound, cumulative count), ascending. The last bound is infinite, and the last count is above 0.
    Returns the q-quantile, or the last finite bound if it is beyond that.
    """
    rank = q * buckets[-1][1]
    for (lower, below), (upper, count) in pairwise([(0.0, 0.0), *buckets]):
        if count >= rank and count > below:
            return lower if upper == float("inf") else lower + (upper - lower) * (rank - below) / (count - below)
    return buckets[-1][0]
