"""`[log]`, `[metrics]` and `[traces]`: the telemetry for operators."""

from typing import Annotated, Literal

from msgspec import Meta, field

from gateway.config.setting import Secret, Settings, positive


class LogSettings(Settings, frozen=True):
    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="What is less serious is not written.")] = (
        "info"
    )
    format: Annotated[
        Literal["auto", "console", "json"], Meta(description='"auto" is "console" on a terminal and "json" elsewhere.')
    ] = "auto"


class MetricsSettings(Settings, frozen=True):
    access: Annotated[
        Literal["open", "key", "off"],
        Meta(description="Who may read /metrics: everyone, callers with a key, or nobody."),
    ] = "open"
    port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="Above 0, /metrics is served on this port, without a key, and no longer on the main one.",
        ),
    ] = 0


class TraceSettings(Settings, frozen=True):
    endpoint: Annotated[
        str | None,
        Meta(
            description="Where spans are sent, by OTLP over HTTP, such as http://collector:4318/v1/traces; unset, nothing is."
            " Needs the extra otel.",
        ),
    ] = None
    headers: Annotated[
        dict[str, Secret], Meta(description='Headers for the collector, each a secret: { api-key = { env = "NAME" } }.')
    ] = field(default_factory=dict)
    sample_ratio: Annotated[
        float,
        Meta(ge=0, le=1, description="The share of requests that are traced, where the client's own trace does not decide it."),
    ] = 1.0
    service_name: Annotated[str, Meta(min_length=1, description="What this server is called in traces.")] = "embeddings-gateway"
    timeout_seconds: Annotated[float, positive(description="How long the collector may take to accept spans.")] = 5.0

    def __post_init__(self) -> None:
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("endpoint must begin with http:// or https://")
