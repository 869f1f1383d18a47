"""OpenTelemetry tracing: a span for each request, its stages, and its calls to other servers, sent to a collector.

Tracing is off unless `traces.endpoint` is set; while off, `stage` costs one look at a variable. The names are those of the semantic
conventions for HTTP and for generative AI; deploy/traces.md has the table. No text, vector or key is ever an attribute.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.config import TraceSettings, secret_value
from gateway.errors import ConfigurationError

if TYPE_CHECKING:  # the SDK is an extra
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

NANOSECONDS = 1_000_000_000
MAX_WAITING_SPANS = 8192  # beyond it spans are dropped: a slow collector costs traces, never requests
ERROR_STATUS = 500  # a server's span is an error from this status on; a client's mistake is not one

Attributes = Mapping[str, str | int | float | bool | None]

current: ContextVar["RequestSpan | None"] = ContextVar("current", default=None)


def stage(name: str, started: float, ended: float) -> None:
    """Adds a span for a stage of the current request. Times are of `time.perf_counter`. Does nothing if it is not traced."""
    span = current.get()
    if span is not None:
        span.stage(name, started, ended)


def trace_headers() -> dict[str, str]:
    """The W3C headers by which another process works for the current request; none if it is not traced."""
    span = current.get()
    return {} if span is None else span.headers


@contextmanager
def call(name: str, attributes: Attributes) -> Iterator[dict[str, str]]:
    """Traces a call to another server for the current request. Yields the W3C headers that carry the trace there."""
    span = current.get()
    if span is None:
        yield {}
        return
    with span.call(name, attributes) as headers:
        yield headers


class Tracing:
    """Starts the spans of requests. `close` sends the spans that are left."""

    def __init__(self, settings: TraceSettings, exporter: "SpanExporter | None" = None) -> None:
        """Without `exporter`, spans go to `settings.endpoint`. Raises ConfigurationError if the extra is not installed."""
        try:
            from opentelemetry import trace  # noqa: PLC0415 - an extra
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                "traces.endpoint: traces need the extra otel: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
            ) from None
        self.api = trace
        self.w3c = TraceContextTextMapPropagator()
        self.provider = TracerProvider(
            resource=Resource.create({"service.name": settings.service_name, "service.version": __version__}),
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(BatchSpanProcessor(exporter or _exporter_of(settings), max_queue_size=MAX_WAITING_SPANS))
        self.tracer = self.provider.get_tracer("gateway", __version__)

    def begin(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> "RequestSpan":
        """Starts the span of a new request, as a child of the client's own span if the headers name one."""
        carrier = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in (b"traceparent", b"tracestate")
        }
        span = self.tracer.start_span(method, context=self.w3c.extract(carrier), kind=self.api.SpanKind.SERVER)
        request = RequestSpan(self, span)
        current.set(request)
        return request

    def resume(self, headers: Mapping[str, str]) -> None:
        """From now on the current task works for a request whose span another process has. `headers` are `RequestSpan.headers`."""
        current.set(RequestSpan(self, self.api.get_current_span(self.w3c.extract(headers))))

    def close(self) -> None:
        """Blocks until the waiting spans were sent, or given up."""
        self.provider.shutdown()


def _exporter_of(settings: TraceSettings) -> "SpanExporter":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra

    return OTLPSpanExporter(
        endpoint=settings.endpoint,
        headers={name: secret_value(secret).strip() for name, secret in settings.headers.items()},
        timeout=settings.timeout_seconds,
    )


class RequestSpan:
    """One request's span, the parent of its stages' spans."""

    def __init__(self, tracing: Tracing, span: "Span") -> None:
        self.tracing = tracing
        self.span = span
        self.context = tracing.api.set_span_in_context(span)
        self.epoch_ns = time.time_ns() - time.perf_counter_ns()

    @property
    def trace_id(self) -> str | None:
        """As hex, for the log; None if this request is not sampled."""
        about = self.span.get_span_context()
        return f"{about.trace_id:032x}" if about.trace_flags.sampled else None

    @property
    def headers(self) -> dict[str, str]:
        """The W3C headers by which another process works for this request."""
        headers: dict[str, str] = {}
        self.tracing.w3c.inject(headers, self.context)
        return headers

    def stage(self, name: str, started: float, ended: float) -> None:
        if self.span.is_recording():  # a span of another process is not: that process adds the stages which it is told of
            span = self.tracing.tracer.start_span(name, context=self.context, start_time=self.epoch_ns + int(started * NANOSECONDS))
            span.end(self.epoch_ns + int(ended * NANOSECONDS))

    @contextmanager
    def call(self, name: str, attributes: Attributes) -> Iterator[dict[str, str]]:
        span = self.tracing.tracer.start_span(
            name, context=self.context, kind=self.tracing.api.SpanKind.CLIENT, attributes=without_none(attributes)
        )
        headers: dict[str, str] = {}
        self.tracing.w3c.inject(headers, self.tracing.api.set_span_in_context(span))
        try:
            yield headers
        except BaseException as error:
            span.set_attribute("error.type", getattr(error, "code", None) or type(error).__qualname__)
            span.set_status(self.tracing.api.StatusCode.ERROR)
            raise
        finally:
            span.end()

    def end(self, name: str, *, status: int, error: str | None, attributes: Attributes) -> None:
        """Ends the span, after the response was sent or the client left. `error` is a code of gateway/errors/, None on success."""
        self.span.update_name(name)
        self.span.set_attributes({**without_none(attributes), "http.response.status_code": status})
        if error is not None:
            self.span.set_attribute("error.type", error)
        if status >= ERROR_STATUS:
            self.span.set_status(self.tracing.api.StatusCode.ERROR)
        self.span.end()


def without_none(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
