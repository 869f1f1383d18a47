"""`gateway models add`: adds a model's row to the configuration file. All other lines stay unchanged."""

import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
import tomli_w

from gateway.app import Gateway
from gateway.cli.check import lines_of
from gateway.cli.known_models import KNOWN
from gateway.cli.options import config_option
from gateway.config import BUILTIN_MODELS, ModelRow, first_set, load
from gateway.config.loading import DEFAULT_FILE
from gateway.engine.model_facts import ModelFacts, facts_of
from gateway.engine.settings import LocalSettings
from gateway.engine.weights import local_folder_of
from gateway.errors import OperatorError


@dataclass(frozen=True, slots=True)
class _ReadyRow:
    """A model under a short name. `about` describes it in a line; `download_bytes` is the size of its files on the hub."""

    row: ModelRow
    about: str
    download_bytes: int


MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
RERANKER = "cross-encoder/ms-marco-MiniLM-L6-v2"
STATIC = "minishlab/potion-retrieval-32M"
READY = {
    "multilingual": _ReadyRow(
        ModelRow(name=MULTILINGUAL.partition("/")[2], aliases=(MULTILINGUAL, "multilingual"), settings={"source": MULTILINGUAL}),
        about="texts in 50 languages, 384 dimensions; its vectors are made unit-length",
        download_bytes=480_000_000,
    ),
    "reranker": _ReadyRow(
        ModelRow(name=RERANKER.partition("/")[2], aliases=(RERANKER, "reranker"), settings={"source": RERANKER}),
        about="scores of a query and documents, for /v1/rerank: English, 512 tokens",
        download_bytes=92_000_000,
    ),
    "static": _ReadyRow(
        ModelRow(name=STATIC.partition("/")[2], aliases=(STATIC, "static"), settings={"source": STATIC}),
        about="a vector for each token, 512 dimensions, English: tens of thousands of texts a second, for less exact searches",
        download_bytes=130_000_000,
    ),
    "minilm": _ReadyRow(
        BUILTIN_MODELS[0], about="the built-in one: English, 384 dimensions; its weights are a package", download_bytes=0
    ),
}


@click.command()
@config_option
@click.argument("ready", metavar=f"{'|'.join(READY)}|HUB_ID_OR_FOLDER")
@click.option("--source", metavar="FOLDER", help="Where its files are, if not on the hub: a folder, or another hub id.")
@click.option("--print", "is_printed", is_flag=True, help="Print the row, and write nothing.")
@click.pass_obj
def add(outer_path: str | None, path: str | None, ready: str, source: str | None, is_printed: bool) -> None:
    """Add a model to the configuration file, by a short name, its hub id or its folder.

    The row has what the model's card or its own files say. A model whose files are here and would not be served is refused.
    A server that watches its file serves the new model by itself.
    """
    facts: ModelFacts | None = None
    if ready in READY:
        row = READY[ready].row
    elif source is not None:
        raise click.UsageError(f"--source is for the short names {', '.join(READY)}: name the folder alone")
    else:
        row, facts = row_of(ready)
    if source is not None:
        row = msgspec.structs.replace(row, settings={**row.settings, "source": _find_row(source)})
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
    if local_folder_of(row.settings["source"]) is None:
        size = f", {READY[ready].download_bytes // 1_000_000} MB" if ready in READY and source is None else ""
        click.echo(f"Its files are not on this machine: they are fetched from the hub when it is first loaded{size}.")


def _find_row(source: str) -> str:
    """A folder's absolute path, as a server may be started elsewhere; a hub id unchanged.

    Raises OperatorError if the folder contains no model.
    """
    is_folder = local_folder_of(source) is not None and Path(source).expanduser().is_dir()
    return str(Path(source).expanduser().resolve()) if is_folder else source


def row_of(source: str) -> tuple[ModelRow, ModelFacts | None]:
    """A row for a folder or a hub id, and what the model's files say if they are on this machine.

    Raises OperatorError if the model would not be served, or its name is no name for a folder or a hub id.
    """
    folder, known = local_folder_of(source), KNOWN.get(source)
    facts = facts_of(folder) if folder is not None else None
    is_folder = folder is not None and Path(source).expanduser().is_dir()
    if not is_folder and source.count("/") != 1:
        raise OperatorError(f"'{source}' is neither a folder, nor a hub id such as BAAI/bge-m3, nor one of {', '.join(READY)}")
    prompts = dict(known.prompts) if known is not None and not (facts and facts.prompts) else {}
    settings = {"source": _find_row(source), **({"prompts": prompts} if prompts else {})}
    name = Path(source).expanduser().resolve().name if is_folder else source.partition("/")[2]
    return ModelRow(name=name, aliases=() if is_folder else (source,), settings=settings), facts


def _as_toml(rows: Iterable[ModelRow], facts: ModelFacts | None = None) -> str:
    """The rows, and before the last one what its files say. Its own prompts hold without being in the row."""
    *others, last = map(_one_as_toml, rows)
    lines = lines_of(facts, LocalSettings(source="", download=False)) if facts is not None else []
    about = [f"# {line}\n" for line in lines if not line.startswith("served")]  # that is of this machine, not of the model
    return "\n".join([*others, "".join(about) + last])


def _one_as_toml(row: ModelRow) -> str:
    """A table under [[models]]: tomli_w would write a short one in braces, behind which no other can be added."""
    return "[[models]]\n" + tomli_w.dumps(table(row)).replace("\n[", "\n[models.")


def table(row: ModelRow) -> dict[str, Any]:
    """The row's fields that differ from their defaults, and its name."""
    common = {name: value for name, value in msgspec.structs.asdict(row).items() if name != "settings"}
    defaults = msgspec.structs.asdict(ModelRow(name=row.name))
    return {name: value for name, value in common.items() if name == "name" or value != defaults[name]} | row.settings


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
