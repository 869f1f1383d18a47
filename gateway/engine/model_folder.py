"""The files of a model's folder, read without torch: JSON objects, modules, options, and the names of tensors."""

import re
import zipfile
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gateway.engine.identity import modules_of, parse_json, routes_of
from gateway.errors import OperatorError

OPTIONS = tuple(
    f"sentence_{name}_config.json" for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
TRANSFORMERS = {"Transformer", "MLMTransformer"}
NAMES_IN_PICKLE = re.compile(rb"[A-Za-z_][\w.]*\.(?:weight|bias)")
OWN_SETTINGS = "config_sentence_transformers.json"
MAX_HEADER_BYTES = 100 * 1024 * 1024  # safetensors' own bound


class OwnSettings(Struct, frozen=True):
    """What sentence-transformers' own file says of a model."""

    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None
    truncate_dim: int | None = None

    def named_prompts(self) -> dict[str, str]:
        """The prompts that are not empty."""
        return {name: text for name, text in (self.prompts or {}).items() if text}


def own_settings(folder: Path) -> OwnSettings:
    """Raises OperatorError, naming the entry, for one of another type."""
    path = folder / OWN_SETTINGS
    try:
        return msgspec.convert(table(path), OwnSettings)
    except msgspec.ValidationError as error:
        raise OperatorError(f"the file {path} is not as sentence-transformers writes it: {error}") from None


def is_bare(folder: Path) -> bool:
    """Whether the folder has no modules.json, as transformers alone saves it: sentence-transformers then adds default pooling."""
    return modules_of(folder) is None


def module_names(folder: Path) -> list[str]:
    """The classes of modules.json, without their packages."""
    return [str(module.get("type")).rpartition(".")[2] for module in modules_of(folder) or ()]


def transformer_folders(folder: Path) -> list[Path]:
    """The folders of transformers' networks: the folder itself if it is bare, else those of modules.json and of its routes."""
    modules = modules_of(folder)
    if modules is None:
        return [folder]
    parts = [
        folder / str(module.get("path") or "") for module in modules if str(module.get("type")).rpartition(".")[2] in TRANSFORMERS
    ]
    routes = [route for module in modules for route in routes_of(folder / str(module.get("path") or ""))]
    return parts + [route for route in routes if (route / "config.json").is_file() and options_of(route)]


def options_of(part: Path) -> dict[str, Any]:
    """The first of the OPTIONS files that is not empty, in sentence-transformers' order; {} if there is none."""
    return next(filter(None, (table(part / name) for name in OPTIONS)), {})


def tensor_names(path: Path) -> set[str]:
    """The names of the tensors in a weights file, read without torch. Empty if it cannot be read: loading it reports that."""
    try:
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                return set(msgspec.json.decode(file.read(min(length, MAX_HEADER_BYTES)), type=dict[str, Any])) - {"__metadata__"}
        if path.suffix == ".bin":
            with zipfile.ZipFile(path) as archive:
                pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
                return {found.decode() for name in pickles for found in NAMES_IN_PICKLE.findall(archive.read(name))}
    except (OSError, ValueError, zipfile.BadZipFile):
        return set()
    return set()


def table(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty if there is no such file. Raises OperatorError if it is no JSON object."""
    if not path.is_file():
        return {}
    content = parse_json(path)
    if not isinstance(content, dict):
        raise OperatorError(f"the file {path} is no JSON object")
    return content


def inner_table(content: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """An object in a configuration of the model in `folder`; empty if it is absent or null. Raises OperatorError if it is none."""
    found = content.get(name) or {}
    if not isinstance(found, dict):
        raise OperatorError(f"{name} of the model in {folder} is no JSON object")
    return found
