"""`gateway models pin`: compares a model's fingerprint with the pinned one, and pins the present one."""

import asyncio
import os
import re
import shutil
import tempfile
import tomllib
from pathlib import Path

import click

from gateway.app import Gateway
from gateway.background import launch
from gateway.cli.options import config_option
from gateway.config import first_set, load
from gateway.config.loading import DEFAULT_FILE
from gateway.embedding.fingerprint import changes
from gateway.embedding.loading import wait_settled
from gateway.embedding.model import Model
from gateway.errors import OperatorError

HEADING = re.compile(r"^\s*\[")
MODEL_HEADING = re.compile(r"^\s*\[\[\s*models\s*\]\]")
PINNED = re.compile(r"^\s*fingerprint\s*=")


@click.command()
@config_option
@click.argument("name")
@click.option("--print", "is_printed", is_flag=True, help="Print the comparison and the line, and write nothing.")
@click.pass_obj
def pin(outer_path: str | None, path: str | None, name: str, is_printed: bool) -> None:
    """Compare a model's vectors with the pinned ones, and pin the present ones: from then on its row refuses to serve others.

    It loads the model, or asks its server, as a gateway would. It changes or adds one line of the file, and nothing else.
    """
    gateway = Gateway(load(path or outer_path))
    model = gateway.catalog.by_name.get(name)
    if model is None:
        raise OperatorError(f"no model has the name or alias '{name}'")
    found, pinned = asyncio.run(fingerprint_of(model)), model.row.fingerprint
    click.echo(f"pinned   {pinned or '-'}\nfound    {found}")
    if pinned == found:
        click.echo("the same: nothing is to be done")
        return
    if pinned is not None:
        click.echo(f"changed  {', '.join(changes(pinned, found))}")
    if is_printed:
        click.echo(f'fingerprint = "{found}"')
        return
    if first_set(["GATEWAY__MODELS"]):
        raise OperatorError("GATEWAY__MODELS is set, and replaces the models of the file: pin it there (--print shows the line)")
    given = path or outer_path or first_set(["GATEWAY_CONFIG"])
    file = Path(given) if given else DEFAULT_FILE
    write(file, model.name, found)
    click.echo(f"{model.name}: pinned in {file}. An index of other vectors is to be made anew")


async def fingerprint_of(model: Model) -> str:
    """The model's fingerprint, without a check against the pinned one.

    Raises OperatorError if the model cannot be loaded, or its server is unavailable.
    """
    start = launch(model.embedder.start(), name=f"start-{model.name}")
    try:
        await wait_settled(start, model.embedder)
        if not start.done():
            raise OperatorError(f"models[{model.name}]: {model.embedder.health().detail}")
        start.result()
        return model.name_of(model.embedder.describe().fingerprint)
    finally:
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        await model.embedder.close()


def write(file: Path, name: str, fingerprint: str) -> None:
    """Writes atomically. Raises OperatorError if the file cannot be written, or not without changing anything else."""
    by_hand = f'write fingerprint = "{fingerprint}" into the row by hand'
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            before = opened.read()
        expected = tomllib.loads(before)
        [row] = [row for row in expected.get("models", []) if row.get("name") == name]
        after = pinned_in(before, expected["models"].index(row), fingerprint)
        row["fingerprint"] = fingerprint
        if tomllib.loads(after) != expected:
            raise OperatorError(f"{file}: its models are not written as [[models]] each: {by_hand}")
        replace(file.resolve(), after)
    except (OSError, ValueError, LookupError):  # also if the file is wrong: it has no such row
        raise OperatorError(f"{file} cannot be changed: {by_hand}") from None


def pinned_in(text: str, place: int, fingerprint: str) -> str:
    """The text with a `fingerprint` line added or replaced in the row at index `place` of [[models]]; all else is unchanged."""
    lines = text.splitlines(keepends=True)
    headings = [index for index, line in enumerate(lines) if MODEL_HEADING.match(line)]
    start = headings[place] + 1
    stop = next((index for index in range(start, len(lines)) if HEADING.match(lines[index])), len(lines))
    newline = "\r\n" if "\r\n" in text else "\n"
    line = f'fingerprint = "{fingerprint}"{newline}'
    old = [index for index in range(start, stop) if PINNED.match(lines[index])]
    if old:
        return "".join([*lines[: old[0]], line, *lines[old[0] + 1 :]])
    names = [index for index in range(start, stop) if re.match(r"^\s*name\s*=", lines[index])]
    after = names[0] + 1 if names else start
    head = lines[after - 1] if lines[after - 1].endswith("\n") else lines[after - 1] + newline
    return "".join([*lines[: after - 1], head, line, *lines[after:]])


def replace(target: Path, content: str) -> None:
    number, name = tempfile.mkstemp(prefix=f".{target.name}-", suffix=".toml", dir=target.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        shutil.copymode(target, name)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)
