"""Rows of the configuration for models that a command line names: by a short name, a hub id or a folder."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from gateway.cli.known_models import KNOWN
from gateway.config import BUILTIN_MODELS, ModelRow, convert
from gateway.engine.model_facts import ModelFacts, facts_of
from gateway.engine.settings import LocalSettings
from gateway.engine.weights import local_folder
from gateway.errors import OperatorError


@dataclass(frozen=True, slots=True)
class ReadyRow:
    """A model under a short name. `about` describes it in a line; `download_bytes` is the size of its files on the hub."""

    row: ModelRow
    about: str
    download_bytes: int


LIST_OF_ONE = re.compile(r"\[\n +([^\n]+),\n\]")  # tomli_w gives it three lines
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
RERANKER = "cross-encoder/ms-marco-MiniLM-L6-v2"
STATIC = "minishlab/potion-retrieval-32M"
READY = {
    "multilingual": ReadyRow(
        ModelRow(name=MULTILINGUAL.partition("/")[2], aliases=(MULTILINGUAL, "multilingual"), settings={"source": MULTILINGUAL}),
        about="texts in 50 languages, 384 dimensions; its vectors are made unit-length",
        download_bytes=480_000_000,
    ),
    "reranker": ReadyRow(
        ModelRow(name=RERANKER.partition("/")[2], aliases=(RERANKER, "reranker"), settings={"source": RERANKER}),
        about="scores of a query and documents, for /v1/rerank: English, 512 tokens",
        download_bytes=92_000_000,
    ),
    "static": ReadyRow(
        ModelRow(name=STATIC.partition("/")[2], aliases=(STATIC, "static"), settings={"source": STATIC}),
        about="a vector for each token, 512 dimensions, English: tens of thousands of texts a second, for less exact searches",
        download_bytes=130_000_000,
    ),
    "minilm": ReadyRow(
        BUILTIN_MODELS[0], about="the built-in one: English, 384 dimensions; its weights are a package", download_bytes=0
    ),
}


def settings_of(row: ModelRow) -> LocalSettings:
    """The settings of a row of this backend, as they are typed. Raises ConfigurationError."""
    return convert(row.settings, LocalSettings, where=f"models[{row.name}]")


def row_of(model: str, /, *, is_examined: bool = True, **settings: Any) -> tuple[ModelRow, ModelFacts | None]:
    """A row for a short name, a folder or a hub id, and what the model's files say if they are on this machine.

    `settings` are further ones of the row; None stands for none. Without `is_examined` no file is opened. Raises OperatorError if
    the model would not be served, or `model` is no name of any of these.
    """
    chosen = {name: value for name, value in settings.items() if value not in (None, False)}
    if model in READY:
        ready = READY[model].row
        row = msgspec.structs.replace(ready, settings={**ready.settings, **chosen})
        return row, _facts(row) if is_examined else None
    path = Path(os.path.abspath(Path(model).expanduser()))  # noqa: PTH100 - "." gets a name, and a link stays one
    is_folder = os.path.isdir(path)  # noqa: PTH112 - false where the folder above may not be searched: `local_folder` says so
    if not is_folder and model.count("/") != 1 and not model.startswith((".", "/", "~")):
        raise OperatorError(f"'{model}' is neither a folder, nor a hub id such as BAAI/bge-m3, nor one of {', '.join(READY)}")
    known = KNOWN.get(model)
    row = ModelRow(
        name=path.name if is_folder else model.partition("/")[2],
        aliases=() if is_folder else (model,),
        settings={"source": str(path) if is_folder else model, **chosen},
    )
    facts = _facts(row) if is_examined else None
    if known is not None and known.prompts and not (facts and facts.prompts):
        row = msgspec.structs.replace(row, settings={**row.settings, "prompts": dict(known.prompts)})
    return row, facts


def _facts(row: ModelRow) -> ModelFacts | None:
    settings = settings_of(row)
    folder = local_folder(settings)
    return facts_of(folder, trusts_code=settings.trust_remote_code) if folder is not None else None


def rows_of_flags(sources: list[str] | tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows that `--model` stands for, as tables of the configuration. A model of the hub is called by its whole id.

    Raises OperatorError if a model would not be served, or a source is no name of one.
    """
    return [_named_by_id(source, row_of(source)[0]) for source in sources]


def _named_by_id(source: str, row: ModelRow) -> dict[str, Any]:
    is_hub_id = source in row.aliases and source not in READY
    return table(msgspec.structs.replace(row, name=source, aliases=()) if is_hub_id else row)


def table(row: ModelRow) -> dict[str, Any]:
    """The row's fields that differ from their defaults, and its name."""
    common = {name: value for name, value in msgspec.structs.asdict(row).items() if name != "settings"}
    defaults = msgspec.structs.asdict(ModelRow(name=row.name))
    return {name: value for name, value in common.items() if name == "name" or value != defaults[name]} | row.settings


def as_toml(row: ModelRow) -> str:
    """A table under [[models]]: tomli_w would write a short one in braces, behind which no other can be added."""
    written = LIST_OF_ONE.sub(r"[\1]", tomli_w.dumps(table(row)))
    return "[[models]]\n" + written.replace("\n[", "\n[models.")
