"""`gateway models pull`: fetches a model's files into this machine's Hugging Face cache, and says how it would be served."""

import shlex
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.cli.check import lines_of
from gateway.cli.options import config_option, row_options
from gateway.cli.source_row import row_of, settings_of
from gateway.config import ModelRow, load
from gateway.engine.hub import fetch
from gateway.engine.model_facts import facts_of
from gateway.engine.packages import package_folder
from gateway.engine.settings import BACKEND, LocalSettings
from gateway.errors import OperatorError


@click.command()
@config_option
@click.argument("source", metavar="HUB_ID_OR_NAME")
@row_options
@click.pass_obj
def pull(outer_path: str | None, /, *, path: str | None, source: str, **settings: Any) -> None:
    """Fetch a model's files from the hub, by its hub id, a short name of `models add`, or the name of a configured model.

    What is here already is not fetched again: the same command goes on after an interruption. Then it says whether and how the
    model would be served, as `models check` does; exit code 2, and why, if it would not, or cannot be fetched.
    """
    configured = _find_configured(source, path or outer_path)
    if configured is None and Path(source).expanduser().is_dir():
        raise OperatorError(f"{source} is a folder on this machine, so there is nothing to fetch: gateway models check {source}")
    asked = _settings(configured, source, settings)
    folder = package_folder(asked.source) if asked.revision is None else None
    if folder is None:
        click.echo(f"fetching {asked.source}", err=True)
        folder = fetch(asked)
    click.echo(f"{asked.source}: its files are in {folder}")
    click.echo("\n".join(lines_of(facts_of(folder, trusts_code=asked.trust_remote_code), asked)))
    click.echo(f"next: {_next_command(configured, source, settings)}")


def _next_command(configured: ModelRow | None, source: str, settings: dict[str, Any]) -> str:
    if configured is not None:
        return shlex.join(["gateway", "models", "build", configured.name])
    place = settings["hub_token"] or {}
    options = {"--revision": settings["revision"], "--token-env": place.get("env"), "--token-file": place.get("file")}
    given = [part for name, value in options.items() if value for part in (name, value)]
    trust = ["--trust-remote-code"] if settings["trust_remote_code"] else []
    return shlex.join(["gateway", "models", "add", source, *given, *trust])


def _find_configured(name: str, path: str | None) -> ModelRow | None:
    """The configured row of that name or alias, if its model is one of this machine."""
    rows = [row for row in load(path).models if row.backend == BACKEND]
    return next((row for row in rows if name in row.names), None)


def _settings(configured: ModelRow | None, source: str, settings: dict[str, Any]) -> LocalSettings:
    given = {name: value for name, value in settings.items() if value not in (None, False)}
    if configured is None:
        row, _ = row_of(source, is_examined=False, **given)
    else:
        row = msgspec.structs.replace(configured, settings={**configured.settings, **given})
    return settings_of(row)
