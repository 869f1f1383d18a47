"""A model's identity: SHA-256 digests of the files that decide its vectors, and of no others.

The rule: a file counts if editing it can change a number. sentence-transformers reads its own configuration, that of its modules,
transformers' configuration and tokenizer files, and one set of weights a module; a test watches which files it opens. It never
reads README, licences, other formats of the weights and leftovers of training, so they do not count.
"""

import hashlib
import time
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gateway.embedding.fingerprint import digest
from gateway.engine.adapter import base_of
from gateway.errors import OperatorError

CHUNK_BYTES = 1024 * 1024
SETTLED_SECONDS = 2.0
MAX_PARSED_BYTES = 1024 * 1024  # a tokenizer of 250,000 words takes longer to parse than to hash, so its bytes are hashed
MODULES, OPTIONS = "modules.json", "sentence_*config.json"
# The files that transformers' tokenizers and processors read, from the `VOCAB_FILES_NAMES` of its classes and their own patterns.
TOKENIZER_FILES = (
    "tokenizer*", "vocab*", "merges*", "*vocab.json", "*.model", "*.spm", "*.tokenizer", "special_tokens_map.json",
    "added_tokens.json", "bpe.codes", "byte_maps.json", "dict.txt", "emoji.json", "normalizer.json", "word_*.json",
    "chat_template*", "*processor_config.json", "additional_chat_templates/*",
)  # fmt: skip
# `config.*.json` are configurations for one version of transformers; an adapter changes the network; code could compute it.
CONFIGURATION_FILES = ("config*.json", OPTIONS, "adapter_config.json", "artifact.metadata", "*.py")
NOT_READ = (
    "README*",
    "LICENSE*",
    "*.md",
    ".*",
    "*.png",
    "*.jpg",
    "*.onnx",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.gguf",
    "*.log",
    "*.csv",
)
# The only file whose order of keys matters: the first route is the default one.
ORDERED = ("router_config.json",)
# In the order in which transformers looks for them. An index names weights files beside it.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
OTHER_FORMATS = ("*.onnx", "openvino_model*.bin", "openvino_model*.xml", "*.gguf", "*.h5", "*.msgpack", "*.ot")
ENDINGS = (".safetensors", ".bin", ".pt", ".index.json")
ROUTES = ("router_config.json", "config.json")  # a Router, formerly Asym, lists its modules' folders there under "types"


class Identity(Struct, frozen=True, kw_only=True):
    """SHA-256 digests of a model's files: the parts of a fingerprint. `created` is the weights' mtime, in Unix seconds.

    `pooling` covers the modules behind the network, `configuration` all files that are neither weights, tokenizer nor pooling.
    """

    weights: str
    tokenizer: str
    pooling: str
    configuration: str
    created: int

    def parts(self) -> tuple[str, ...]:
        """The digests, without the time the files were written."""
        return self.weights, self.tokenizer, self.pooling, self.configuration


def identity_of(folder: Path) -> Identity:
    """Hashes every byte of the weights. Raises OperatorError if there are none, or a file cannot be read."""
    files = files_of(folder)
    weights = sorted(files["weights"])
    if not weights:
        raise no_weights(folder)
    return Identity(
        weights=sha256_of(weights[0]) if len(weights) == 1 else digest_of(folder, weights),
        tokenizer=digest_of(folder, files["tokenizer"]),
        pooling=digest_of(folder, files["pooling"]),
        configuration=digest_of(folder, files["configuration"]),
        created=int(weights[0].stat().st_mtime),
    )


def no_weights(folder: Path) -> OperatorError:
    """The error of a folder without weights that are read; it names those of another format."""
    others = sorted({path.relative_to(folder) for form in OTHER_FORMATS for path in folder.rglob(form) if path.is_file()})
    there = f"; {others[0]} is of a format that is not read: fetch the model's safetensors too, or save them" if others else ""
    return OperatorError(f"the folder {folder} holds no weights: there is neither a .safetensors nor a .bin file in it{there}")


def refuse_changed(folder: Path, before: Identity) -> None:
    """Called after a load. Raises OperatorError if the files have changed since `before`."""
    if identity_of(folder).parts() != before.parts():
        raise OperatorError(f"the files in {folder} were changed while they were loaded; start again once they are whole")


def files_of(folder: Path) -> dict[str, set[Path]]:
    """The files of each part of an identity. No file is in two parts."""
    weights = set(weights_files(folder))
    own, *modules = module_folders(folder)
    bases = {base / "config.json" for part in (own, *modules) if (base := base_of(part)) is not None}
    own_files = {path for path in (*own.glob("*"), *own.rglob("*.py")) if path.is_file()} - weights
    module_files = {path for module in modules for path in module.rglob("*") if path.is_file()} - weights
    tokenizer = {path for path in own_files | module_files if _is_one_of(path.name, TOKENIZER_FILES)}
    tokenizer |= set(own.glob("additional_chat_templates/*"))
    pooling = {own / MODULES} | {path for path in module_files if not _is_one_of(path.name, NOT_READ)}
    configuration = {path for path in own_files if _is_one_of(path.name, CONFIGURATION_FILES)}
    return {
        "weights": weights,
        "tokenizer": tokenizer,
        "pooling": pooling - tokenizer,
        "configuration": (configuration - pooling - tokenizer) | bases,
    }


def weights_files(folder: Path) -> list[Path]:
    """The weights files that a load of `folder` reads, those of its modules included."""
    found: list[Path] = []
    for part in module_folders(folder):
        found += weights_in(part)
        base = base_of(part)
        found += weights_in(base) if base is not None else []
    return sorted(set(found))


def weights_in(part: Path) -> list[Path]:
    """One module's weights files: those that transformers finds first, or all if the module's options may choose others."""
    first = next((part / name for name in WEIGHTS if (part / name).is_file()), None)
    has_choice = any(_has_own_choice(path) for path in (*part.glob(OPTIONS), part / "config.json"))
    if first is None or has_choice:
        candidates = part.rglob("*") if has_choice else part.glob("*")
        return [path for path in candidates if path.is_file() and path.name.endswith(ENDINGS) and not _is_training(path)]
    if first.suffix != ".json":
        return [first]
    index = parse_json(first)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    names = {str(name) for name in shards.values()} if isinstance(shards, dict) else set()
    return [first, *(part / name for name in names if (part / name).is_file())]


def _has_own_choice(path: Path) -> bool:
    """Whether a module's options name a variant of the weights or another file."""
    if not path.is_file():
        return False
    options = parse_json(path)
    keys = ("model_args", "model_kwargs", "transformers_weights")
    return isinstance(options, dict) and any(options.get(key) for key in keys)


def _is_training(path: Path) -> bool:
    """Whether a file is a leftover of training, or in the folder of another format."""
    return path.name in {"training_args.bin", "optimizer.pt", "scheduler.pt"} or path.parent.name in {"onnx", "openvino"}


def module_folders(folder: Path) -> list[Path]:
    """The folder, those that modules.json names, and those of their routes. Raises OperatorError if modules.json cannot be read."""
    parts = [folder]
    for module in modules_of(folder) or ():
        part = folder / str(module.get("path") or "")
        parts += [each for each in (part, *routes_of(part)) if each not in parts and each.is_dir()]
    return parts


def routes_of(part: Path) -> list[Path]:
    """The folders of a Router's modules."""
    told = [parse_json(part / name) for name in ROUTES if (part / name).is_file()]
    types = [each.get("types") for each in told if isinstance(each, dict)]
    return [part / str(name) for each in types if isinstance(each, dict) for name in each]


def modules_of(folder: Path) -> list[dict[str, Any]] | None:
    """Returns the content of modules.json; None if there is none. Raises OperatorError if it is no list of modules."""
    path = folder / MODULES
    if not path.is_file():
        return None
    modules = parse_json(path)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise OperatorError(f"the file {path} is no list of modules")
    return modules


def _is_one_of(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def digest_of(folder: Path, paths: Iterable[Path]) -> str:
    """One digest of the files' names and contents, in the order of their names."""
    return digest({_name_in(folder, path): _content_digest(path) for path in set(paths) if path.is_file()})


def _name_in(folder: Path, path: Path) -> str:
    """A file's path in the folder; of an adapter's base, which may be anywhere, its name alone."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else f"base/{path.name}"


def _content_digest(path: Path) -> str:
    """The digest of a file. JSON is normalised first, as the order of keys and white space do not change a model."""
    try:
        if path.suffix == ".json" and path.name not in ORDERED and path.stat().st_size <= MAX_PARSED_BYTES:
            return hashlib.sha256(msgspec.json.encode(msgspec.json.decode(path.read_bytes()), order="sorted")).hexdigest()
    except (OSError, ValueError, OverflowError, RecursionError):  # not JSON as we read it, such as NaN
        pass
    return sha256_of(path)


def sha256_of(path: Path) -> str:
    """The digest of a file's bytes, as hex; cached until the file changes. Raises OperatorError if it cannot be read."""
    try:
        about = path.stat()
        # A second change within one clock tick leaves the file's times as they are, so a file changed just now is read again.
        read = _hash_file if time.time() - about.st_ctime > SETTLED_SECONDS else _hash_file.__wrapped__
        return read(path, (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    except OSError as error:
        raise OperatorError(f"the file {path} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=4096)
def _hash_file(path: Path, _stamp: tuple[int, ...]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def parse_json(path: Path) -> Any:
    """A JSON file's content. Raises OperatorError if the file cannot be read, or is not JSON."""
    try:
        return msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise OperatorError(f"the file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise OperatorError(f"the file {path} cannot be read as JSON") from None
