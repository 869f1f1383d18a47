"""The autoscaling policy for Ray Serve: how many replicas a load needs.

Request counts say little: one request may be a word or 600,000 tokens. So a replica reports its queue, in tokens and in seconds at
its own measured speed, and how busy it is. Queued seconds show at once that replicas are too few. The busy ratio keeps enough
replicas while nothing is queued; queued seconds alone would then stop all but one.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.cluster.settings import RaySettings

BACKLOG_SECONDS, QUEUE_TOKENS, BUSY_RATIO = "backlog_seconds", "queue_tokens", "busy_ratio"


class LoadSignals(Protocol):
    """The part of Ray Serve's AutoscalingContext that the policy reads. `aggregated_metrics` is metric -> replica -> mean."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None: ...
    @property
    def target_num_replicas(self) -> int: ...
    @property
    def total_num_requests(self) -> float: ...
    @property
    def total_queued_requests(self) -> float: ...


class Policy:
    """Target tracking. The autoscaler calls it, bounds its result and applies the delays."""

    def __init__(self, *, target_backlog_seconds: float, target_queue_tokens: int, target_busy_ratio: float) -> None:
        self.targets = {
            BACKLOG_SECONDS: target_backlog_seconds,
            QUEUE_TOKENS: target_queue_tokens or math.inf,
            BUSY_RATIO: target_busy_ratio,
        }

    def __call__(self, load: LoadSignals) -> tuple[int, dict[str, Any]]:
        """For each signal, the number of replicas that would bring it to its target; returns the largest. It has no state."""
        metrics = load.aggregated_metrics or {}
        if not any(metrics.get(name) for name in self.targets):  # no reports yet: keep the number
            return load.target_num_replicas, {}
        needed = max(math.ceil(sum(metrics.get(name, {}).values()) / target) for name, target in self.targets.items())
        if load.total_queued_requests >= 1:  # queued in gateways: every replica is full
            needed = max(needed, load.target_num_replicas + 1)
        return max(needed, int(load.total_num_requests > 0)), {}


def options_of(settings: RaySettings) -> dict[str, Any]:
    """The keyword arguments of Policy, which Ray sends as JSON."""
    return {
        "target_backlog_seconds": settings.target_backlog_seconds,
        "target_queue_tokens": settings.target_queue_tokens,
        "target_busy_ratio": settings.target_busy_ratio,
    }
