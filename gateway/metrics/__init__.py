"""Prometheus metrics, each declared once in the file of its subject. Durations are in seconds, sizes in bytes or tokens.

Label values are bounded, whatever clients send: `model` is a configured model's name or "unknown", `route` a route's template or
"unmatched", `code` a code of gateway/errors/.

metrics      all metrics, and their exposition for Prometheus
http         requests, responses and connections
access       keys, limits, usage, and the stores behind them
batches      batches of /v1/batches
model        models: requests, inputs, batches, queues, the cache, groups
upstream     other servers
cluster      models on a Ray cluster
process      configuration, background work, event loop, log
declaration  constructors of counters, gauges and histograms; the buckets
snapshot     the metrics of one process as values; sum: those of several processes; all_processes: their exposition
server       /metrics on a port of its own
"""

from gateway.metrics.access import MAX_KEY_LABELS
from gateway.metrics.batches import BatchMetrics
from gateway.metrics.cluster import ClusterMetrics
from gateway.metrics.metrics import CONTENT_TYPE, Metrics, Reading
from gateway.metrics.model import ModelMetrics, QueueFigures
from gateway.metrics.snapshot import MetricFamily
from gateway.metrics.upstream import UpstreamMetrics

__all__ = [
    "CONTENT_TYPE",
    "MAX_KEY_LABELS",
    "BatchMetrics",
    "ClusterMetrics",
    "MetricFamily",
    "Metrics",
    "ModelMetrics",
    "QueueFigures",
    "Reading",
    "UpstreamMetrics",
]
