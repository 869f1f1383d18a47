"""`gateway models` lists models, `gateway models build` compiles them; its other commands are in modules of their names."""

import json
from contextlib import ExitStack, closing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import click

from gateway.cli import LazyGroup
from gateway.cli.options import config_option
from gateway.config import load
from gateway.embedding.backend import BoundBackend, Preview
from gateway.engine.settings import BACKEND
from gateway.errors import OperatorError

COMMANDS = ("add", "check", "diff", "pin", "pull")  # each in a module of its name
COLUMNS = ("name", "aliases", *(field.name for field in fields(Preview)))
PERCENT = 100


@click.group(cls=LazyGroup, lazy=COMMANDS, invoke_without_command=True)
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def models(context: click.Context, path: str | None, as_json: bool) -> None:
    """List the configured models, and what is known of them before they are loaded."""
    context.obj = path
    if context.invoked_subcommand is not None:
        return
    from gateway.app import Gateway  # noqa: PLC0415 - half a second, which the other commands of this group do not need

    gateway = Gateway(load(path))
    rows = [to_dict(gateway.bind(row)) for row in gateway.config.models]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    table = [[_format_row(each[column]) for column in COLUMNS] for each in rows]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *table, strict=True)]
    for line in [[column.upper() for column in COLUMNS], *table]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@models.command()
@config_option
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    help="A file of texts, one in each line, by which a model in int8 is calibrated anew in place of the built-in ones.",
)
@click.argument("name", required=False)
@click.pass_obj
def build(outer_path: str | None, path: str | None, name: str | None, calibrate: Path | None) -> None:
    """Compile a model ahead of time, or all of them: for images, and for machines that will be offline."""
    from gateway.app import Gateway  # noqa: PLC0415 - as above

    if calibrate is not None and name is None:
        raise OperatorError("--calibrate is for one model: name it")
    gateway = Gateway(load(path or outer_path))
    catalog = gateway.catalog
    if name is not None and name not in catalog.by_name:
        raise OperatorError(f"no model has the name or alias '{name}'")
    chosen = [catalog.by_name[name]] if name else catalog.models
    for model in chosen:
        with closing(_CompileBar()) as bar:
            for made in _with_texts(gateway.bind(model.row), calibrate).compile(bar):
                bar.close()
                click.echo(f"{made.name}: {made.result}")


def _with_texts(bound: BoundBackend, calibrate: Path | None) -> BoundBackend:
    if calibrate is None:
        return bound
    if bound.backend.name != BACKEND:
        raise OperatorError(
            f"--calibrate is for models on this machine, and the backend of '{bound.row.name}' is '{bound.row.backend}'"
        )
    return replace(bound, context=replace(bound.context, calibrate=calibrate))


class _CompileBar:
    """A progress bar for each model that is really compiled. Implements CompileProgress."""

    def __init__(self) -> None:
        self.name = ""
        self.share = 0.0
        self.shown = ExitStack()

    def __call__(self, name: str, step: str, *, share: float) -> None:
        if name != self.name:
            self.close()
            label = f"compiling {name}"
            self.bar = self.shown.enter_context(
                click.progressbar(length=PERCENT, label=label, item_show_func=lambda step: step or "")
            )
            self.name, self.share = name, 0.0
        self.bar.update(round(PERCENT * (share - self.share)), step)
        self.share = share

    def close(self) -> None:
        self.shown.close()


def to_dict(bound: BoundBackend) -> dict[str, Any]:
    return {"name": bound.row.name, "aliases": list(bound.row.aliases)} | asdict(bound.preview())


def _format_row(value: Any) -> str:
    if value is None or value == []:
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)
