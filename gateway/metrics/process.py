"""Metrics of the process: its configuration, background work, event loop and log."""

from prometheus_client import CollectorRegistry, ProcessCollector

from gateway import __version__
from gateway.metrics.declaration import MetricDeclaration


class ProcessMetrics:
    """Metrics that belong to no single request or model."""

    def __init__(self, declare: MetricDeclaration, registry: CollectorRegistry) -> None:
        self.log_lines_left_out = declare.count(
            "gateway_log_lines_left_out_total", "Lines of the log that strangers caused and that were only counted.", ["reason"]
        )
        self.config_reloads = declare.count(
            "gateway_config_reloads_total", "Configurations read while running; result is loaded, unchanged or refused.", ["result"]
        )
        self.config_loaded_at = declare.gauge(
            "gateway_config_last_load_timestamp_seconds",
            "When the configuration in effect was loaded, in Unix seconds.",
            merge="engine",
        )
        self.config_is_accepted = declare.gauge(
            "gateway_config_last_reload_successful",
            "1 while the configuration read last is in effect, 0 while it was refused.",
            merge="engine",
        )
        self.config_is_accepted.set(1)
        self.background_dead = declare.gauge(
            "gateway_background_dead", "What died and only a restart brings back, as /livez tells it."
        )
        self.background_restarts = declare.count(
            "gateway_background_restarts_total", "Background tasks that died and were begun anew.", ["task"]
        )
        for task in ("cluster", "group", "live-figures"):  # starts at 0, so that a rate includes the first one
            self.background_restarts.labels(task)
        self.loop_lag = declare.gauge(
            "gateway_event_loop_lag_seconds", "How late the event loop was when last looked at.", merge="max"
        )
        declare.gauge("gateway_build_info", "1 for the running version.", ["version"], merge="max").labels(__version__).set(1)
        self.processes = declare.gauge(
            "gateway_processes", "Processes that run, by role; none where the gateway is one process.", ["role"]
        )
        self.process_restarts = declare.count(
            "gateway_process_restarts_total", "Processes that died and were started anew, by role.", ["role"]
        )
        declare.merges["process_start_time_seconds"] = "min"  # the supervisor's: the others may be younger
        ProcessCollector(registry=registry)
