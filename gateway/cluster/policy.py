"""How many replicas a load needs: a policy of Ray Serve's autoscaler.

Request counts say little: one request may be a word or 600,000 tokens. A replica tells what waits in it instead, in tokens and in
seconds of its own measured speed, and how busy it is. Seconds that wait tell of too few replicas at once; how busy they are keeps
enough of them when nothing waits, where seconds alone would stop all but one.
"""

import math
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.cluster.settings import RaySettings

BACKLOG_SECONDS, QUEUE_TOKENS, BUSY_RATIO = "backlog_seconds", "queue_tokens", "busy_ratio"


class LoadSignals(Protocol):
    """The part of Ray Serve's AutoscalingContext that is read. `aggregated_metrics` is metric -> replica -> mean."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None: ...
    @property
    def target_num_replicas(self) -> int: ...
    @property
    def total_num_requests(self) -> float: ...
    @property
    def total_queued_requests(self) -> float: ...


class Policy:
    """Called by the autoscaler, which bounds what it returns and applies the delays."""

    def __init__(self, *, target_backlog_seconds: float, target_queue_tokens: int, target_busy_ratio: float) -> None:
        self.targets = {
            BACKLOG_SECONDS: target_backlog_seconds,
            QUEUE_TOKENS: target_queue_tokens or math.inf,
            BUSY_RATIO: target_busy_ratio,
        }

    def __call__(self, load: LoadSignals) -> tuple[int, dict[str, Any]]:
        """The number of replicas that would bring each signal to its target, the largest of them. No state is kept."""
        metrics = load.aggregated_metrics or {}
        if not any(metrics.get(name) for name in self.targets):  # nobody has told anything yet: stay
            return load.target_num_replicas, {}
        needed = max(math.ceil(sum(metrics.get(name, {}).values()) / target) for name, target in self.targets.items())
        if load.total_queued_requests >= 1:  # at the gateways: no replica takes any more
            needed = max(needed, load.target_num_replicas + 1)
        return max(needed, int(load.total_num_requests > 0)), {}


def options_of(settings: RaySettings) -> dict[str, Any]:
    """The keyword arguments of Policy, which travel as JSON."""
    return {
        "target_backlog_seconds": settings.target_backlog_seconds,
        "target_queue_tokens": settings.target_queue_tokens,
        "target_busy_ratio": settings.target_busy_ratio,
    }
