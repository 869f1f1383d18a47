"""Logs an outage: one line when an endpoint becomes unavailable and one when it is back, however many requests fail meanwhile."""

from gateway.log import get_logger

SILENT_SECONDS = 8.0  # without a reply to a request: it may only be slow, but an operator should know

log = get_logger()


class EndpointOutage:
    """The outages of one endpoint. It logs at most once a second: a breaker opens for at least that long, a silence is longer."""

    def __init__(self, model: str, address: str) -> None:
        self.model = model
        self.address = address
        self.is_logged = False

    def begin(self, reason: str) -> None:
        if not self.is_logged:
            self.is_logged = True
            log.warning("upstream_unavailable", model=self.model, address=self.address, reason=reason)

    def silent(self) -> None:
        self.begin(f"no reply for {SILENT_SECONDS:g} s")

    def end(self) -> None:
        if self.is_logged:
            self.is_logged = False
            log.info("upstream_available", model=self.model, address=self.address)
