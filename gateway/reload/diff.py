"""What a new configuration changes: what cannot be changed while running, and which embedders can stay."""

from collections.abc import Iterator

import msgspec

from gateway.config import Config, ModelRow
from gateway.errors import ConfigurationError

# The socket is bound, and the files are open; connections are made by what stood here when the server began.
FIXED = (
    "server.host", "server.port", "server.unix_socket_mode", "server.max_connections", "server.max_header_bytes",
    "server.header_timeout_seconds", "server.keep_alive_seconds", "server.send_timeout_seconds",
    "server.max_unsent_bytes", "store", "metrics.port", "traces",
)  # fmt: skip


def refuse_fixed(before: Config, after: Config) -> None:
    """Raises ConfigurationError naming every setting that changed and needs a restart."""
    if changed := list(fixed_changes(before, after)):
        raise ConfigurationError(f"{', '.join(changed)}: cannot be changed while running: restart the gateway, or change it back")


def fixed_changes(before: Config, after: Config) -> Iterator[str]:
    for name in FIXED:
        section, _, setting = name.partition(".")
        for field in msgspec.structs.fields(getattr(before, section)):
            old, new = (getattr(getattr(config, section), field.name) for config in (before, after))
            if setting in {"", field.name} and old != new:
                yield f"{section}.{field.name}"
    if before.metrics.port and before.metrics.access != after.metrics.access:
        yield "metrics.access (with a port of its own)"


def embedder_key(config: Config, row: ModelRow) -> object:
    """What an embedder is built from. One of the same recipe is the same embedder, whatever else changed, its aliases included."""
    limits = config.limits.max_input_tokens, config.limits.max_request_tokens  # the others are those of keys
    return row.name, row.backend, row.settings, limits, config.engine, config.store
