"""The record of one request. Handlers fill it in, Edge counts and logs it. It never contains text, vectors or keys."""

import random
import re
import time
from dataclasses import dataclass, field
from typing import Any

from litestar.types import Scope

from gateway.access.limits.lease import Lease
from gateway.api.error_format import ErrorFormat, openai_error
from gateway.errors import GatewayError, Unavailable
from gateway.tracing import Attributes, RequestSpan

OPENAI_VERSION = "2020-10-01"
OWN_HEADERS = [(b"openai-version", OPENAI_VERSION.encode()), (b"x-content-type-options", b"nosniff")]  # on every reply
PRIVATE_HEADERS = [*OWN_HEADERS, (b"cache-control", b"no-store")]  # on replies that differ between clients
CLIENT_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(slots=True)
class RequestRecord:
    request_id: str
    method: str
    path: str  # as the client sent it, before it was rewritten
    path_model: str | None = None
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    outcome: str = "ok"
    is_rejected: bool = False  # with our 503, whatever status the door has for it
    caller: str | None = None
    model: str | None = None
    num_inputs: int | None = None
    num_tokens: int | None = None
    num_hits: int | None = None
    dimensions: int | None = None
    member: str | None = None  # the server of a failover group that answered
    stages: dict[str, float] = field(default_factory=dict)
    span: RequestSpan | None = None
    client: str | None = None
    lease: Lease | None = None
    error_format: ErrorFormat = openai_error  # of the door; "/rerank" knows it once the body is parsed
    operation: str = "embeddings"  # OpenTelemetry's name of what the door does

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def fail(self, error: GatewayError) -> None:
        self.outcome, self.is_rejected = error.outcome, error.status == Unavailable.status

    def line(self) -> dict[str, Any]:
        """Returns the fields of the log line, without those that do not apply."""
        fields: dict[str, Any] = {"request_id": self.request_id, "status": self.status}
        if self.outcome != "ok":
            fields["code"] = self.outcome
        fields["duration_ms"] = _milliseconds(self.seconds)
        optional = {
            "client": self.client,
            "key": self.caller,
            "model": self.model,
            "inputs": self.num_inputs,
            "tokens": self.num_tokens,
            "cache_hits": self.num_hits,
            "trace_id": self.span.trace_id if self.span else None,
            "member": self.member,
        }
        fields |= {name: value for name, value in optional.items() if value is not None}
        for stage, seconds in self.stages.items():
            fields[f"{stage}_ms"] = _milliseconds(seconds)
        return fields

    def end_span(self, route: str, method: str) -> None:
        """Ends the span, with OpenTelemetry's attributes for HTTP servers and, if a model was found, those for generative AI."""
        if self.span is None:
            return
        attributes: Attributes = {
            "http.request.method": method,
            "http.route": route,
            "gateway.request_id": self.request_id,
            "gateway.key": self.caller,
        }
        if self.model is not None:
            attributes = {
                **attributes,
                "gen_ai.operation.name": self.operation,
                "gen_ai.request.model": self.model,
                "gen_ai.usage.input_tokens": self.num_tokens,
                "gen_ai.embeddings.dimension.count": self.dimensions,
                "gateway.inputs": self.num_inputs,
                "gateway.cache_hits": self.num_hits,
            }
        error = None if self.outcome == "ok" else self.outcome
        self.span.end(f"{method} {route}", status=self.status, error=error, attributes=attributes)


def _milliseconds(seconds: float) -> float:
    """To a tenth. As `round` does it, which takes three times as long."""
    return int(10_000 * seconds + 0.5) / 10


def record_of(scope: Scope) -> RequestRecord:
    """Returns the record that Edge put into the request's scope."""
    record: RequestRecord = scope["state"]["record"]
    return record


def request_id_from(client_id: str | None) -> str:
    """Returns the client's own id if it is harmless (CLIENT_REQUEST_ID), else a new one."""
    if client_id is not None and CLIENT_REQUEST_ID.fullmatch(client_id):
        return client_id
    return f"req_{random.getrandbits(128):032x}"
