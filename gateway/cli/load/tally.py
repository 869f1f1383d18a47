"""Counts replies and their latencies. Its memory does not grow with the length of a run."""

import math
from collections import Counter
from itertools import accumulate

from gateway.cli.load.peer import BenchResponse

BUCKET_WIDTH = math.log(1.01)
SHORTEST_SECONDS = 1e-6
MAX_KINDS = 50  # a bound: a server could send a new code each time


class Latencies:
    """A histogram with logarithmic buckets, 1 % wide: percentiles are exact to 0.5 %, the maximum exactly."""

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.slowest: float | None = None

    def add(self, seconds: float) -> None:
        self.buckets[round(math.log(max(seconds, SHORTEST_SECONDS)) / BUCKET_WIDTH)] += 1
        self.slowest = max(seconds, self.slowest or 0.0)

    def percentile(self, percent: float) -> float | None:
        """The smallest latency that `percent` of all did not exceed; None if there are none."""
        if self.slowest is None:
            return None
        rank = math.ceil(self.buckets.total() * percent / 100)
        ordered = sorted(self.buckets)
        ranks = accumulate(self.buckets[bucket] for bucket in ordered)
        bucket = next(bucket for bucket, last in zip(ordered, ranks, strict=True) if last >= rank)
        return min(math.exp(bucket * BUCKET_WIDTH), self.slowest)


class BenchCounts:
    """Requests, inputs, tokens and latencies are those of correct replies: a refusal is fast, but does no work."""

    def __init__(self) -> None:
        self.num_requests = 0
        self.num_inputs = 0
        self.num_tokens = 0
        self.latencies = Latencies()
        self.errors: Counter[str] = Counter()

    def add(self, answer: BenchResponse, *, num_inputs: int) -> None:
        if answer.error is not None:
            is_known = answer.error in self.errors or len(self.errors) < MAX_KINDS
            self.errors[answer.error if is_known else "other"] += 1
            return
        self.num_requests += 1
        self.num_inputs += num_inputs
        self.num_tokens += answer.num_tokens
        self.latencies.add(answer.seconds)
