"""A quantile of what a histogram counted."""

from collections.abc import Sequence
from itertools import pairwise


def quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float:
    """`buckets` are (upper bound, how many were at most that), ascending, the last bound infinite; the last count is above 0.

    Within a bucket values are taken to be spread evenly; beyond the last finite bound, that bound. This is Prometheus's
    `histogram_quantile`: https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile
    """
    rank = q * buckets[-1][1]
    for (lower, below), (upper, count) in pairwise([(0.0, 0.0), *buckets]):
        if count >= rank and count > below:
            return lower if upper == float("inf") else lower + (upper - lower) * (rank - below) / (count - below)
    return buckets[-1][0]
