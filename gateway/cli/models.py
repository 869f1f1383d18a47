"""`gateway models`, `gateway models build`, and the commands beside them."""

import json
from pathlib import Path
from typing import Any

import click

from gateway.app import Gateway
from gateway.cli.add import add
from gateway.cli.diff import diff
from gateway.cli.options import config_option
from gateway.cli.pin import pin
from gateway.config import load
from gateway.embedding.model import Model
from gateway.engine import artifact, runtime
from gateway.engine.compiler import STEPS, CompileProcess
from gateway.engine.embedder import LocalEmbedder
from gateway.errors import OperatorError

COLUMNS = (
    "name",
    "aliases",
    "source",
    "runtime",
    "device",
    "precision",
    "dimensions",
    "max_tokens",
    "fidelity",
    "state",
    "fallback",
)


@click.group(invoke_without_command=True)
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def models(context: click.Context, path: str | None, as_json: bool) -> None:
    """List the configured models, and what is known of them before they are loaded."""
    context.obj = path
    if context.invoked_subcommand is not None:
        return
    rows = [to_dict(model) for model in Gateway(load(path)).catalog.models]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    table = [[format_row(each[column]) for column in COLUMNS] for each in rows]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *table, strict=True)]
    for line in [[column.upper() for column in COLUMNS], *table]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@models.command()
@config_option
@click.argument("name", required=False)
@click.pass_obj
def build(outer_path: str | None, path: str | None, name: str | None) -> None:
    """Compile a model ahead of time, or all of them: for images, and for machines that will be offline."""
    catalog = Gateway(load(path or outer_path)).catalog
    if name is not None and name not in catalog.by_name:
        raise OperatorError(f"no model has the name or alias '{name}'")
    chosen = [catalog.by_name[name]] if name else catalog.models
    for model in chosen:
        place = build_one(model)
        click.echo(f"{model.name}: {place}")


models.add_command(add)
models.add_command(diff)
models.add_command(pin)


def build_one(model: Model) -> Path | str:
    """The artifact's folder, made if it was not there."""
    embedder = model.built
    if not isinstance(embedder, LocalEmbedder):
        return "nothing to compile: it is not served on this machine"
    runtime.check_files(embedder.settings, embedder.artifacts)
    if not runtime.compiles(embedder.settings):
        return "nothing to compile: it runs through torch"
    with click.progressbar(length=len(STEPS), label=f"compiling {model.name}", item_show_func=lambda step: step or "") as bar:
        place = runtime.artifact_for(
            model.name, embedder.settings, embedder.artifacts, progress=lambda step: bar.update(1, step), child=CompileProcess()
        )
    manifest = artifact.read(place)
    if manifest is not None and manifest.runtime == "torch":
        return f"measured, and served through torch: {manifest.fallback}"
    return place


def to_dict(model: Model) -> dict[str, Any]:
    """Its row, which also says why a folder cannot be served, and how one without modules.json is pooled."""
    try:
        known = row(model)
        pooling = runtime.default_pooling(model.built.settings) if isinstance(model.built, LocalEmbedder) else ""
    except OperatorError as error:
        return dict.fromkeys(COLUMNS) | {"name": model.name, "aliases": list(model.row.aliases), "state": f"refused: {error}"}
    return known | {"state": f"{known['state']}; no modules.json: {pooling}"} if pooling else known


def row(model: Model) -> dict[str, Any]:
    known = dict.fromkeys(COLUMNS) | {"name": model.name, "aliases": list(model.row.aliases), "state": "not compiled"}
    embedder = model.built
    if not isinstance(embedder, LocalEmbedder):
        return known | {"source": model.row.backend, "state": "known once it is loaded"}
    known["source"] = embedder.settings.source
    is_compiled = runtime.compiles(embedder.settings)
    manifest = runtime.known_artifact(embedder.settings, embedder.artifacts)
    if manifest is None and is_compiled:
        return known | {"runtime": "openvino", "device": "cpu"}
    if manifest is None:
        return known | {"runtime": "torch", "device": embedder.settings.device, "state": "known once it is loaded"}
    return known | {
        "runtime": manifest.runtime,
        "device": "cpu",
        "precision": manifest.precision,
        "dimensions": manifest.network.dimensions,
        "max_tokens": manifest.network.max_tokens,
        "fidelity": round(manifest.fidelity, 6),
        "state": "compiled" if manifest.runtime == "openvino" else "measured",
        "fallback": manifest.fallback or None,
    }


def format_row(value: Any) -> str:
    if value is None or value == []:
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)
