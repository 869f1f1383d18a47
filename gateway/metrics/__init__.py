"""Every metric, told once, by what it is of: its name, its labels, its meaning. Durations are in seconds, sizes in bytes or tokens.

Labels are bounded whatever clients send: `model` is a configured model's name or "unknown", `route` a route's template or
"unmatched", `code` a code of gateway/errors/.

metrics      all of them, and the text that Prometheus reads
http         what was asked, and the connections
access       keys, limits, usage, and the stores behind them
model        models: requests, inputs, batches, queues, the cache, groups
upstream     other servers
cluster      models on a Ray cluster
process      configuration, background work, event loop, log
declaration  how one is declared; the buckets
server       /metrics on a port of its own
"""

from gateway.metrics.access import MAX_KEY_LABELS
from gateway.metrics.cluster import ClusterMetrics
from gateway.metrics.metrics import CONTENT_TYPE, Metrics
from gateway.metrics.model import ModelMetrics
from gateway.metrics.upstream import UpstreamMetrics

__all__ = ["CONTENT_TYPE", "MAX_KEY_LABELS", "ClusterMetrics", "Metrics", "ModelMetrics", "UpstreamMetrics"]
