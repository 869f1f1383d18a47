"""`gateway config check|show|example`: checks, prints and documents the configuration."""

import asyncio
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import click
import msgspec
import tomli_w

from gateway.access.keys.snapshot import configured_keys
from gateway.app import Gateway
from gateway.build import BUILTIN_BACKENDS
from gateway.cli.connect import connect
from gateway.cli.options import config_option
from gateway.config import BUILTIN_MODELS, Config, ModelRow, Secret, load
from gateway.embedding.memory_budget import too_large
from gateway.errors import ConfigurationError, OperatorError

WIDTH = 120
SECRET_WORDS = ("key", "secret", "password", "credential", "header")
TOLD = {"key_header"}  # looks like a secret, but is none
KINDS_OF_DEFAULTS = {"default_model": "embedder", "default_reranker": "reranker"}
PASSWORD = re.compile(r"(://)[^/@\s]*@")  # in an address, where it does not belong: building the row refuses it


@click.group()
def config() -> None:
    """Check, show and explain the configuration."""


@config.command()
@config_option
@click.option("--connect", "connects", is_flag=True, help="Also reach the key store, Redis, and every address of other servers.")
def check(path: str | None, *, connects: bool) -> None:
    """Check the configuration: its settings, its keys, other servers' keys, and where its models are."""
    settings = load(path)
    gateway = Gateway(settings)
    configured_keys(settings.auth)
    for row in settings.models:
        gateway.bind(row).check()
    _refuse_default_of_other_kind(gateway)
    _refuse_more_than_budget(gateway)
    if connects:
        reach(gateway)
    click.echo(f"ok: {', '.join(model.name for model in gateway.catalog.models)}")


def _refuse_more_than_budget(gateway: Gateway) -> None:
    """Raises ConfigurationError for a model that engine.memory_budget has no room for, as far as sizes are known already."""
    max_bytes = gateway.config.engine.memory_budget
    if not max_bytes:
        return
    sizes = {row.name: gateway.bind(row).preview().bytes or 0 for row in gateway.config.models}
    fixed = 0
    for row in sorted(gateway.config.models, key=lambda row: row.load != "start"):
        if sizes[row.name] and fixed + sizes[row.name] > max_bytes:
            raise ConfigurationError(too_large(row.name, sizes[row.name], max_bytes, fixed=fixed))
        fixed += sizes[row.name] if row.load == "start" else 0


def _refuse_default_of_other_kind(gateway: Gateway) -> None:
    """Raises ConfigurationError if a default model is of another kind than its requests ask for, where that is known already."""
    for setting, wanted in KINDS_OF_DEFAULTS.items():
        name = getattr(gateway.config.server, setting)
        found = None if name is None else gateway.bind(gateway.catalog.find(name).row).preview().kind
        if found not in {None, wanted}:
            raise ConfigurationError(f"server.{setting}: the model '{name}' is of the kind {found}, not {wanted}")


def reach(gateway: Gateway) -> None:
    """Prints a line for each server that the configuration names. Raises OperatorError if one cannot be used."""
    outcomes = asyncio.run(connect(gateway))
    for outcome in outcomes:
        click.echo(outcome)
    if failed := [outcome.what for outcome in outcomes if not outcome.is_ok]:
        raise OperatorError(f"{len(failed)} of {len(outcomes)} cannot be used: {', '.join(failed)}")


@config.command()
@config_option
def show(path: str | None) -> None:
    """Print the configuration in effect, as TOML. In place of a secret it shows where the secret is kept."""
    click.echo(tomli_w.dumps(_as_tables(load(path))), nl=False)


@config.command()
def example() -> None:
    """Print every setting, with its default and its description, as a TOML file to start from."""
    click.echo("\n".join(document()))


def _as_tables(settings: Config) -> dict[str, Any]:
    tables: dict[str, Any] = msgspec.to_builtins(settings)
    tables["models"] = [_row_table(row) for row in settings.models]
    return {name: without_none(table) if isinstance(table, dict) else table for name, table in tables.items()}


def _row_table(row: ModelRow) -> dict[str, Any]:
    own = {name: value for name, value in msgspec.to_builtins(row).items() if name != "settings"}
    return without_none({**own, **{name: _mask_secrets(name, value) for name, value in row.settings.items()}})


def _mask_secrets(name: str, value: Any) -> Any:
    """Masks values in a backend's own settings that look like a secret, at any depth. Our own secrets are always references."""
    if isinstance(value, dict):
        is_place = set(value) <= {"env", "file"}  # a reference to a secret: it may be shown
        return {inner: each if is_place else _mask_secrets(f"{name}.{inner}", each) for inner, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mask_secrets(name, each) for each in value]
    is_secret = any(word in name.lower() for word in SECRET_WORDS)
    if not isinstance(value, str) or name in TOLD:
        return value
    return "***" if is_secret else PASSWORD.sub(r"\1***@", value)


def without_none(table: dict[str, Any]) -> dict[str, Any]:
    """Omits values that are not set: TOML has no null."""
    return {name: without_none(value) if isinstance(value, dict) else value for name, value in table.items() if value is not None}


def document() -> Iterator[str]:
    yield "# Every setting of the gateway, with its default. A flag goes before the environment, the environment before this file."
    yield "# In the environment [server] port is GATEWAY__SERVER__PORT; lists and tables are JSON, such as GATEWAY__MODELS='[…]'."
    yield '# A secret is never written here: it is { env = "NAME" } or { file = "PATH" }.'
    for name, section in get_type_hints(Config).items():
        if name != "models":
            yield f"\n[{name}]"
            yield from _document_fields(section)
    yield "\n# What stands here replaces the built-in model, which is this one."
    yield "[[models]]"
    yield from _document_fields(ModelRow)
    yield ""
    yield from comment(f"Backends: {', '.join(backend.name for backend in BUILTIN_BACKENDS)}, and those of installed packages.")
    written: set[str] = set()
    for number, backend in enumerate(BUILTIN_BACKENDS):
        yield f'\n# backend = "{backend.name}":'
        lines = list(_document_fields(backend.settings, written))
        yield from lines if number == 0 else (line if line.startswith("#") else f"# {line}" for line in lines)


def _document_fields(struct: Any, written: set[str] | None = None) -> Iterator[str]:
    """Lines for each field. `written` are the descriptions already written above, which are not repeated."""
    written = set() if written is None else written
    [builtin] = BUILTIN_MODELS
    known = _row_table(builtin) if struct is ModelRow else builtin.settings
    hints = get_type_hints(struct, include_extras=True)
    repeated: list[str] = []
    for field in msgspec.structs.fields(struct):
        if field.name == "settings":  # of a row: its backend documents these
            continue
        meta = next(part for part in get_args(hints[field.name]) if isinstance(part, msgspec.Meta))
        if meta.description in written:
            repeated.append(field.name)
            continue
        written.add(str(meta.description))
        yield from comment(str(meta.description))
        default = field.default if field.default is not msgspec.NODEFAULT else None
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if field.name in known:
            yield tomli_w.dumps({field.name: known[field.name]}).strip()
        elif default is None and Secret in get_args(field.type.__origin__ if hasattr(field.type, "__origin__") else field.type):
            yield f'# {field.name} = {{ env = "NAME" }}'
        elif default is None or default == {}:
            yield f"# {field.name} ="
        elif isinstance(default, msgspec.Struct):
            yield f"{field.name} = {inline(msgspec.to_builtins(default))}"
        else:
            yield tomli_w.dumps({field.name: default}).strip()
    if repeated:
        yield from comment(f"As above: {', '.join(repeated)}.")


def inline(table: dict[str, Any]) -> str:
    """A table as TOML on one line."""
    parts = [f"{name} = {inline(value) if isinstance(value, dict) else json.dumps(value)}" for name, value in table.items()]
    return f"{{ {', '.join(parts)} }}" if parts else "{}"


def comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in textwrap.wrap(text, WIDTH))
