"""`gateway models add`: adds a model's row to the configuration file. All other lines stay unchanged."""

import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from gateway.app import Gateway
from gateway.cli.check import lines_of
from gateway.cli.options import config_option, row_options
from gateway.cli.source_row import READY, as_toml, row_of
from gateway.config import BUILTIN_MODELS, ModelRow, first_set, load
from gateway.config.loading import DEFAULT_FILE
from gateway.engine.model_facts import ModelFacts
from gateway.engine.settings import LocalSettings
from gateway.errors import OperatorError


@click.command()
@config_option
@click.argument("ready", metavar=f"{'|'.join(READY)}|HUB_ID_OR_FOLDER")
@click.option("--source", metavar="FOLDER", help="Where its files are, if not on the hub: a folder, or another hub id.")
@row_options
@click.option("--print", "is_printed", is_flag=True, help="Print the row, and write nothing.")
@click.pass_obj
def add(outer_path: str | None, /, *, path: str | None, ready: str, source: str | None, is_printed: bool, **settings: Any) -> None:
    """Add a model to the configuration file, by a short name, its hub id or its folder.

    The row has what the model's card or its own files say. A model whose files are here and would not be served is refused.
    A server that watches its file serves the new model by itself.
    """
    if source is not None and ready not in READY:
        raise click.UsageError(f"--source is for the short names {', '.join(READY)}: name the folder alone")
    row, facts = row_of(ready, **settings, source=source and _absolute(source))
    if is_printed:
        click.echo(_as_toml([row], facts), nl=False)
        return
    given = path or outer_path or first_set(["GATEWAY_CONFIG"])
    file = Path(given) if given else DEFAULT_FILE
    if first_set(["GATEWAY__MODELS"]):
        raise OperatorError("GATEWAY__MODELS is set, and replaces the models of the file: add the row there (--print shows it)")
    before = read(file)
    rows = [row] if "models" in tomllib.loads(before) else [*(BUILTIN_MODELS if row.name != BUILTIN_MODELS[0].name else ()), row]
    write(file, before, _append_row(before, _as_toml(rows, facts)), expected=[row.name for row in rows])
    click.echo(f"{row.name}: written to {file}")
    if facts is None:
        size = f", {READY[ready].download_bytes // 1_000_000} MB" if ready in READY and source is None else ""
        click.echo(f"Its files are not on this machine: they are fetched from the hub when it is first loaded{size}.")


def _absolute(source: str) -> str:
    """A folder's absolute path, as a server may be started elsewhere, with its links; a hub id unchanged."""
    path = Path(source).expanduser()
    return str(path.absolute()) if path.is_dir() else source


def _as_toml(rows: Iterable[ModelRow], facts: ModelFacts | None = None) -> str:
    """The rows, and before the last one what its files say. Its own prompts hold without being in the row."""
    *others, last = map(as_toml, rows)
    lines = lines_of(facts, LocalSettings(source="", download=False)) if facts is not None else []
    about = [f"# {line}\n" for line in lines if not line.startswith("served")]  # that is of this machine, not of the model
    return "\n".join([*others, "".join(about) + last])


def read(file: Path) -> str:
    """The file's text, "" if there is no file. Raises OperatorError if it is already wrong: then nothing is added."""
    if not file.exists():
        return ""
    load(file)
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return opened.read()


def _append_row(before: str, rows: str) -> str:
    newline = "\r\n" if "\r\n" in before else "\n"
    end = "" if not before or before.endswith("\n") else newline
    gap = newline if before else ""
    return before + end + gap + rows.replace("\n", newline)


def write(file: Path, before: str, after: str, *, expected: list[str]) -> None:
    """Writes atomically: to a temporary file in the same folder, which is loaded as a server would, then renamed to `file`.

    Raises OperatorError if a name is taken, or the file cannot be extended or written.
    """
    old = tomllib.loads(before)
    known = [row.get("name") for row in old.get("models", [])]
    if twice := [name for name in expected if name in known]:
        raise OperatorError(f"{file} has a model named '{twice[0]}' already: nothing was written")
    target = file.resolve()  # replaces the link's target, not the link
    try:
        if {**tomllib.loads(after), "models": None} != {**old, "models": None}:
            raise OperatorError(f"{file} cannot be added to: add the row by hand (--print shows it)")
        number, name = tempfile.mkstemp(prefix=f".{target.name}-", suffix=".toml", dir=target.parent)
    except tomllib.TOMLDecodeError:
        raise OperatorError(f"{file} has its models as one value: add the row by hand (--print shows it)") from None
    except OSError as error:
        raise OperatorError(f"{file} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="") as opened:
            opened.write(after)
            opened.flush()
            os.fsync(opened.fileno())
        Gateway(load(name))
        shutil.copymode(target, name) if target.exists() else Path(name).chmod(0o644)
        Path(name).replace(target)
    except OSError as error:
        raise OperatorError(f"{file} cannot be written: {error.strerror}") from None
    finally:
        Path(name).unlink(missing_ok=True)
