"""The capacity plan: how many replicas and nodes a load needs, and the latency to expect. deploy/ray/sizing.md says why.

The model: a text goes to the less busy of two random replicas (power of two choices), and waits there for a free stream. A free
stream takes all waiting texts, up to a batch's tokens. Load has two levels, base and peak; each lasts long compared with a text.
"""

import math
from dataclasses import dataclass, replace

from msgspec import Struct

from gateway.capacity.queueing import batch_waits, erlang_c, lognormal_exceeds, two_choices
from gateway.errors import OperatorError

MAX_REPLICAS = 100_000
MAX_UTILIZATION = 0.85  # beyond it a few per cent more load doubles the wait, and no load is known that exactly
LONGEST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The load, in texts of one request each. For `peak_share` of the time there are `peak_factor` times as many as on average.

    `tokens` is the mean number of a text's tokens, `tokens_cv` their standard deviation over the mean.
    """

    texts_per_second: float
    tokens: float
    tokens_cv: float = 0.7
    peak_factor: float = 2.0
    peak_share: float = 0.1

    def __post_init__(self) -> None:
        if self.peak_factor * self.peak_share > 1:
            raise OperatorError("more texts come at the peak than there are at all: peak factor times peak share is above 1")

    @property
    def peak(self) -> float:
        return self.texts_per_second * self.peak_factor

    @property
    def base(self) -> float:
        rest = 1 - self.peak_share
        return self.texts_per_second * (1 - self.peak_factor * self.peak_share) / rest if rest else self.peak


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaProfile:
    """What one replica can do. `tokens_per_second` is measured with full batches on all `streams`.

    `batch_overhead_seconds` is the time of an empty batch. `call_seconds` is a text's time outside the engine: HTTP, and Ray both
    ways.
    """

    tokens_per_second: float
    streams: int = 2
    batch_tokens: int = 512
    batch_overhead_seconds: float = 0.0005
    call_seconds: float = 0.005
    cores: float = 2.0
    gpus: float = 0.0
    memory_mb: float = 450.0

    def __post_init__(self) -> None:
        if self.seconds_per_token <= 0:
            raise OperatorError("the overhead of a batch alone takes longer than a full batch is measured to take")

    @property
    def seconds_per_token(self) -> float:
        """The time of a token on one stream, without the overhead of its batch."""
        return self.streams / self.tokens_per_second - self.batch_overhead_seconds / self.batch_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    cores: float = 16.0
    gpus: float = 0.0
    memory_mb: float = 65_536.0

    def room_for(self, replica: ReplicaProfile) -> int:
        """How many replicas fit."""
        rooms = [self.memory_mb / replica.memory_mb]
        rooms += [self.cores / replica.cores] if replica.cores else []
        rooms += [self.gpus / replica.gpus] if replica.gpus else []
        return math.floor(min(rooms) + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTarget:
    """The latency to meet, even with `node_losses` nodes lost. A new replica serves `scaling_seconds` after it is requested."""

    p99_seconds: float = 0.1
    node_losses: int = 1
    scaling_seconds: float = 60.0


class Plan(Struct, frozen=True, kw_only=True):
    """A plan. `p50_seconds` and `p99_seconds` are expected with all nodes up, `…_after_losses` with as many lost as are tolerated.

    `headroom` is the most load that the cluster can carry, as a multiple of the peak. `replicas_at_base` are enough between peaks.
    `step_wait_seconds` is how long texts come to wait if only those replicas run when a peak begins.
    """

    replicas: int
    nodes: int
    replicas_per_node: int
    utilization_mean: float
    utilization_peak: float
    headroom: float
    p50_seconds: float
    p99_seconds: float
    p50_seconds_after_losses: float
    p99_seconds_after_losses: float
    memory_mb: float
    memory_mb_per_node: float
    replicas_at_base: int
    step_wait_seconds: float


def make_plan(load: Workload, replica: ReplicaProfile, node: Node, target: ServiceTarget) -> Plan:
    """The plan with the fewest replicas that meet the target, on nodes that they fill. Raises OperatorError if no number does."""
    room = node.room_for(replica)
    if room < 1:
        raise OperatorError("no replica fits on a node of these cores, GPUs and memory")
    floor_seconds = percentile(0.99, replace(load, texts_per_second=1e-9), replica, 1)
    if floor_seconds > target.p99_seconds:
        told = f"{1000 * floor_seconds:.1f} ms at the 99th percentile"
        raise OperatorError(f"a text that never waits takes {told}, whatever the number of replicas")
    needed = fewest(load, replica, target.p99_seconds)
    nodes = math.ceil(needed / room) + target.node_losses
    replicas = needed + target.node_losses * room
    at_base = max(1, math.ceil(load.base * load.tokens / (replica.tokens_per_second * MAX_UTILIZATION)))
    return Plan(
        replicas=replicas,
        nodes=nodes,
        replicas_per_node=room,
        utilization_mean=load.texts_per_second * load.tokens / (replicas * replica.tokens_per_second),
        utilization_peak=load.peak * load.tokens / (replicas * replica.tokens_per_second),
        headroom=replicas * replica.tokens_per_second / (load.peak * load.tokens),
        p50_seconds=percentile(0.5, load, replica, replicas),
        p99_seconds=percentile(0.99, load, replica, replicas),
        p50_seconds_after_losses=percentile(0.5, load, replica, needed),
        p99_seconds_after_losses=percentile(0.99, load, replica, needed),
        memory_mb=replicas * replica.memory_mb,
        memory_mb_per_node=min(room, replicas) * replica.memory_mb,
        replicas_at_base=min(at_base, replicas),
        step_wait_seconds=step_wait(load, replica, replicas=min(at_base, replicas), scaling_seconds=target.scaling_seconds),
    )


def fewest(load: Workload, replica: ReplicaProfile, p99_seconds: float) -> int:
    """The fewest replicas for that latency, by bisection: more replicas never make a text slower.

    Raises OperatorError if it takes more than MAX_REPLICAS.
    """
    low = max(1, math.ceil(load.peak * load.tokens / (replica.tokens_per_second * MAX_UTILIZATION)))
    high = low
    while percentile(0.99, load, replica, high) > p99_seconds:
        low, high = high + 1, 2 * high
        if high > MAX_REPLICAS:
            raise OperatorError(f"more than {MAX_REPLICAS:,} replicas would be needed")
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if percentile(0.99, load, replica, middle) > p99_seconds else (low, middle)
    return low


def percentile(share: float, load: Workload, replica: ReplicaProfile, replicas: int) -> float:
    """The latency in seconds that this share of all texts does not exceed, by bisection."""
    low, high = 0.0, LONGEST_SECONDS
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _exceeding(middle, load, replica, replicas) > 1 - share else (low, middle)
    return high


def _exceeding(seconds: float, load: Workload, replica: ReplicaProfile, replicas: int) -> float:
    """The share of all texts that take longer than `seconds`: those of the peak, and those of the rest of the time."""
    at_peak = load.peak_factor * load.peak_share
    peak = _exceeding_at(load.peak, seconds, load, replica, replicas)
    return at_peak * peak + (1 - at_peak) * _exceeding_at(load.base, seconds, load, replica, replicas)


def _exceeding_at(texts_per_second: float, seconds: float, load: Workload, replica: ReplicaProfile, replicas: int) -> float:
    """That share at one level of load. A text takes its own time and, with the probability of Erlang C, a wait."""
    each, overhead = load.tokens * replica.seconds_per_token, replica.batch_overhead_seconds
    rate = texts_per_second / (replicas * replica.streams)
    utilization = rate * each
    if utilization >= 1:
        return 1.0
    left = seconds - replica.call_seconds - overhead
    if left <= 0:
        return 1.0
    own = lognormal_exceeds(left, mean=each, cv=load.tokens_cv)
    busy = min(1.0, rate * (each + overhead))  # the share of time that a stream works, if every batch has one text
    pool = min(2, replicas) * replica.streams
    waits = erlang_c(pool, busy * pool)
    texts, overheads = batch_waits(utilization, each, overhead)
    texts *= two_choices(utilization, replicas) * (1 + load.tokens_cv**2) / 2  # long texts delay more texts
    late = waits * _still_waiting(left - each, mean=(texts + overheads) / busy, even_share=overheads / (texts + overheads))
    return min(1.0, own + (1 - own) * late)


def _still_waiting(seconds: float, *, mean: float, even_share: float) -> float:
    """The probability that a wait of this mean exceeds `seconds`.

    The part spent on other texts is exponential. The part spent on the batch before, `even_share`, is uniform.
    """
    if seconds <= 0 or mean <= 0:
        return float(seconds <= 0)
    return (1 - even_share) * math.exp(-seconds / mean) + even_share * max(0.0, 1 - seconds / (2 * mean))


def step_wait(load: Workload, replica: ReplicaProfile, *, replicas: int, scaling_seconds: float) -> float:
    """The longest wait of a peak, just before new replicas serve after `scaling_seconds`: the backlog over the service rate."""
    surplus = load.peak * load.tokens - replicas * replica.tokens_per_second
    return max(0.0, surplus) * scaling_seconds / (replicas * replica.tokens_per_second)
