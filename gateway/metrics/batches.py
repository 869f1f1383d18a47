"""Metrics of batches."""

from gateway.metrics.declaration import MetricDeclaration

UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")
ENDS = ("completed", "failed", "expired", "cancelled")


class BatchMetrics:
    """Batches of /v1/batches."""

    def __init__(self, declare: MetricDeclaration) -> None:
        self.unfinished = declare.gauge("gateway_batches", "Batches that wait or run, on all gateways of the database.", ["status"])
        self.running = declare.gauge("gateway_batches_running", "Batches that this gateway works on.")
        self.ended = declare.count("gateway_batches_ended_total", "Batches that ended here, by how.", ["status"])
        self.requests = declare.count(
            "gateway_batch_requests_total", "Requests of batches that were answered here, and stored.", ["outcome"]
        )
        self.leases_lost = declare.count(
            "gateway_batch_leases_lost_total", "Batches that another gateway took over while this one worked on them."
        )
        self.reports_failed = declare.count(
            "gateway_batch_reports_failed_total", "Reports that the webhook's address did not take."
        )
        for status in ENDS:
            self.ended.labels(status)
        for outcome in ("completed", "failed"):
            self.requests.labels(outcome)

    def show_unfinished(self, counts: dict[str, int]) -> None:
        for status in UNFINISHED:
            self.unfinished.labels(status).set(counts.get(status, 0))
