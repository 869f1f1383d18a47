"""The difference between two configurations: settings that need a restart, and embedders that can be kept."""

from collections.abc import Iterator

import msgspec

from gateway.config import Config, ModelRow
from gateway.errors import ConfigurationError

# Need a restart: the socket is bound, the files are open, and connections use the values from the start.
FIXED = (
    "server.host", "server.port", "server.workers", "server.unix_socket_mode", "server.max_connections", "server.max_header_bytes",
    "server.header_timeout_seconds", "server.keep_alive_seconds", "server.send_timeout_seconds",
    "server.max_unsent_bytes", "store", "metrics.port", "traces",
)  # fmt: skip


def refuse_fixed(before: Config, after: Config) -> None:
    """Raises ConfigurationError if settings changed that need a restart; its text names all of them."""
    if changed := list(_fixed_changes(before, after)):
        raise ConfigurationError(f"{', '.join(changed)}: cannot be changed while running: restart the gateway, or change it back")


def _fixed_changes(before: Config, after: Config) -> Iterator[str]:
    for name in FIXED:
        section, _, setting = name.partition(".")
        for field in msgspec.structs.fields(getattr(before, section)):
            old, new = (getattr(getattr(config, section), field.name) for config in (before, after))
            if setting in {"", field.name} and old != new:
                yield f"{section}.{field.name}"
    if before.metrics.port and before.metrics.access != after.metrics.access:
        yield "metrics.access (with a port of its own)"


def embedder_key(config: Config, row: ModelRow) -> object:
    """Everything an embedder is built from. Rows with equal keys share an embedder, even if their aliases differ."""
    limits = config.limits.max_input_tokens, config.limits.max_request_tokens  # the other limits belong to keys
    engine = msgspec.structs.replace(config.engine, memory_budget=0)  # the loader's, which outlives configurations
    return row.name, row.backend, row.settings, limits, engine, config.store
