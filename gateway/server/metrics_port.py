"""A separate port for /metrics, for a Prometheus that must not reach the clients' port."""

from gateway.config import MetricsSettings, ServerSettings, listen_addresses
from gateway.errors import OperatorError
from gateway.metrics import Metrics
from gateway.server.listening import Listening


def open_metrics_port(metrics: Metrics, settings: MetricsSettings, server: ServerSettings) -> None:
    """Opens the port, if one is set, and serves it. Raises OperatorError if it cannot be opened."""
    if (listening := metrics_listening(settings, server)) is not None:
        metrics.serve(listening.sockets)


def metrics_listening(settings: MetricsSettings, server: ServerSettings) -> Listening | None:
    """Opens the port if one is set: on the server's addresses, or on 127.0.0.1 if those are only Unix sockets.

    Raises OperatorError if it cannot be opened.
    """
    if not settings.port or settings.access == "off":
        return None
    networks = [address for address in server.addresses if not address.path]
    try:
        return Listening(networks or listen_addresses("127.0.0.1"), settings.port)
    except OperatorError as error:
        raise OperatorError(f"metrics.port: {error}") from None
