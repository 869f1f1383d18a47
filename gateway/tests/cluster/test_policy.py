"""How many replicas a load needs."""

from dataclasses import dataclass, field

import pytest

from gateway.cluster.policy import Policy


@dataclass
class Load:
    """What Ray Serve's autoscaler tells a policy."""

    aggregated_metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    target_num_replicas: int = 2
    total_num_requests: float = 0.0
    total_queued_requests: float = 0.0


def wanted(load: Load, *, target_queue_tokens: int = 0) -> int:
    policy = Policy(target_backlog_seconds=2.0, target_queue_tokens=target_queue_tokens, target_busy_ratio=0.5)
    return policy(load)[0]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"backlog_seconds": {"a": 7.0, "b": 2.0}}, 5),
        ({"backlog_seconds": {"a": 0.0, "b": 0.0}, "busy_ratio": {"a": 0.6, "b": 0.5}}, 3),
        ({"backlog_seconds": {"a": 1.0}, "busy_ratio": {"a": 1.0}}, 2),
        ({"backlog_seconds": {"a": 0.0}, "queue_tokens": {"a": 9_000.0}}, 0),
    ],
)
def test_the_signal_that_needs_most_decides(metrics, expected):
    assert wanted(Load(metrics)) == expected


def test_tokens_that_wait_count_where_a_target_is_set():
    assert wanted(Load({"backlog_seconds": {"a": 0.0}, "queue_tokens": {"a": 9_000.0}}), target_queue_tokens=4_000) == 3


def test_nothing_told_yet_changes_nothing():
    assert wanted(Load(target_num_replicas=4)) == 4


def test_requests_that_no_replica_takes_bring_one_more():
    assert wanted(Load({"busy_ratio": {"a": 0.1}}, total_queued_requests=3)) == 3


def test_the_last_replica_stays_while_anything_is_asked():
    assert wanted(Load({"busy_ratio": {"a": 0.0}}, total_num_requests=0.2)) == 1
    assert wanted(Load({"busy_ratio": {"a": 0.0}})) == 0
