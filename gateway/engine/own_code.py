"""Code of a model's own: Python files beside its weights, and the class names that call for them. Nothing is imported here.

It runs only if its row trusts it, in the process that compiles the model; `confinement` is what that process may do.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.config import bare_environment, child_environment
from gateway.embedding.fingerprint import digest
from gateway.engine.adapter import base_of
from gateway.engine.identity import ROUTES, modules_of, sha256_of
from gateway.engine.model_folder import table, transformer_folders
from gateway.engine.unsupported import OTHER_KIND, OURS
from gateway.errors import OperatorError

TORCH = "torch."  # the package of activation functions that a model may name
MAPPED = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
FOREIGN = "--"  # in a class's name, between another repository and the class in it
# Model types whose code was the model's own before transformers had them, and the sizes that its configurations name.
KNOWN_BY_NOW = {"eurobert", "gte", "jina_embeddings_v3", "modernbert", "nomic_bert"}
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
NUM_DIGITS = 40  # as many as a commit has
SNAPSHOTS = "snapshots"  # the folder of commits in the hub's cache


def code_digest(folder: Path) -> str:
    """One digest of the folder's Python files, of their names and contents: what `revision` is for a folder."""
    files = sorted(folder.rglob("*.py"))
    return digest({path.relative_to(folder).as_posix(): sha256_of(path) for path in files})[:NUM_DIGITS]


def repository_of(folder: Path) -> Path:
    """The folder of all files that this one links to: of a snapshot in the hub's cache, its repository there."""
    return folder.parents[1] if folder.parent.name == SNAPSHOTS else folder


def environment_of_own_code(home: Path) -> dict[str, str]:
    """The environment of a process that runs code of a model's own: no key is in it, and every cache is in `home`."""
    root = Path(__file__).parents[2]
    paths = [str(root), *filter(None, [child_environment().get("PYTHONPATH")])]
    hub = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"), "1")
    folders = dict.fromkeys(("HOME", "TMPDIR", "HF_HOME", "XDG_CACHE_HOME", "TORCH_HOME"), str(home))
    return bare_environment(**hub, **folders, PYTHONPATH=os.pathsep.join(paths), PYTHONDONTWRITEBYTECODE="1")


def refuse_other_revision(folder: Path, revision: str | None, *, trusts_code: bool) -> None:
    """Raises OperatorError if a folder's row has a `revision` that is not the digest of its code, or that nothing asks for."""
    if revision is not None and not trusts_code:
        raise OperatorError(
            f"revision is for models of the hub and for trust_remote_code, and {folder} is a folder: fingerprint pins its vectors"
        )
    if revision is not None and revision != (found := code_digest(folder)):
        raise OperatorError(
            f'the code in {folder} is not that of revision "{revision}": its digest is "{found}"; read it before you'
            " change revision",
            category=OTHER_KIND,
        )


def refuse_own_code(folder: Path, *, trusts_code: bool) -> None:
    """Raises OperatorError if the model needs code of its own that is not trusted, or that comes from elsewhere.

    `trusts_code` says that the model's row has trust_remote_code and a pinned revision.
    """
    for what, name in _uses(folder):
        if FOREIGN in name:
            raise _refused(
                f"the model in {folder} needs code of another repository: {what}; revision pins no files there: copy that code into"
                " the model's folder, name it there without the repository, and serve the folder"
            )
        if not trusts_code:
            raise _refused(
                f"the model in {folder} needs code of its own, which is not run: {what}; trust_remote_code = true in its row, with"
                f" revision = {_revision_of(folder)}, runs it in the process that compiles the model; or serve it with another"
                " server, as another backend"
            )


def _revision_of(folder: Path) -> str:
    """What pins the code of this folder: the commit of a snapshot in the hub's cache, or else the digest of its files."""
    return f'"{folder.name if folder.parent.name == SNAPSHOTS else code_digest(folder)}"'


def _uses(folder: Path) -> Iterator[tuple[str, str]]:
    """What needs code of the model's own, for operators, and the names of the classes."""
    for module in modules_of(folder) or ():
        name, part = str(module.get("type")), folder / str(module.get("path") or "")
        if not name.startswith(OURS):
            yield f"modules.json names {name}", name
        if part != folder and not name.endswith(".SpladePooling"):  # its activation functions are words
            yield from _activation_in(part)
        yield from _routes_in(part)
    for part in transformer_folders(folder):
        base = base_of(part)
        if base is not None and any(_mapped_in(base)):
            yield f"{next(_mapped_in(base))[0]}, in its base model {base}", FOREIGN
        yield from _mapped_in(part)


def _activation_in(part: Path) -> Iterator[tuple[str, str]]:
    activation = table(part / "config.json").get("activation_function")
    if isinstance(activation, str) and not activation.startswith(TORCH):  # sentence-transformers would take Tanh instead
        yield f"the activation_function of {part.name} is {activation}", activation


def _routes_in(part: Path) -> Iterator[tuple[str, str]]:
    """The modules of a Router."""
    for file in ROUTES:
        types = table(part / file).get("types")
        for name in map(str, types.values()) if isinstance(types, dict) else ():
            if not name.startswith(OURS):
                yield f"{file} names {name}", name


def _mapped_in(part: Path) -> Iterator[tuple[str, str]]:
    """The classes under auto_map in transformers' configuration files."""
    config = table(part / "config.json")
    for file in MAPPED:
        mapped = table(part / file).get("auto_map")
        if mapped and not (file == "config.json" and _is_known_by_now(config)):
            names = sorted(map(str, mapped)) if isinstance(mapped, dict) else ["classes"]
            yield f"{file} names {', '.join(names)} under auto_map", str(mapped)


def _is_known_by_now(config: dict[str, Any]) -> bool:
    """Whether transformers has the network by now, whose code a folder still names for older releases.

    transformers then takes its own, and so does the gateway. A configuration in the words of that code has other names for the
    sizes; its network would be made with transformers' defaults.
    """
    return config.get("model_type") in KNOWN_BY_NOW and all(isinstance(config.get(size), int) for size in SIZES)


def _refused(message: str) -> OperatorError:
    return OperatorError(message, category=OTHER_KIND)
