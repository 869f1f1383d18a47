"""Finds a model's files: in a folder, an installed package, the local Hugging Face cache, or on the hub."""

from pathlib import Path

from gateway.engine.adapter import CONFIG, is_adapter
from gateway.engine.hub import MISSING, NOT_NEEDED, fetch, missing
from gateway.engine.identity import MODULES, OTHER_FORMATS, weights_files
from gateway.engine.integrity import refuse_damaged
from gateway.engine.kind import kind_of
from gateway.engine.model_folder import transformer_folders
from gateway.engine.own_code import refuse_other_revision
from gateway.engine.packages import package_folder
from gateway.engine.settings import LocalSettings
from gateway.errors import OperatorError


def find_folder(settings: LocalSettings) -> Path:
    """The folder with a row's files. Uses the network only with `download`, and only if they are not on this machine.

    Raises OperatorError if files are missing (its message says how to provide them), if an installed package has other weights than
    the known ones, or if the model is of a kind that is not served.
    """
    found = local_folder(settings)
    if found:
        return found
    if not settings.download:
        raise OperatorError(missing(settings.source, "and this row may not download it"), category=MISSING)
    folder = fetch(settings)
    _refuse_unserved(folder, settings)
    return folder


def local_folder(settings: LocalSettings) -> Path | None:
    """Returns the folder with a row's files if it is on this machine, else None. Raises OperatorError if it is not served."""
    try:
        folder = _any_folder_of(settings)
        if folder is not None:
            _refuse_unserved(folder, settings)
    except PermissionError as error:  # of a folder: even to ask whether a file is there takes the right to search it
        raise OperatorError(f"{error.filename} cannot be read: {error.strerror}", category=MISSING) from None
    return folder


def _refuse_unserved(folder: Path, settings: LocalSettings) -> None:
    """Raises OperatorError for a kind of model that is not served, and for files that are not whole."""
    kind_of(folder, trusts_code=settings.trust_remote_code)
    refuse_damaged(folder)


def _any_folder_of(settings: LocalSettings) -> Path | None:
    source = settings.source
    path = Path(source).expanduser()
    if path.is_dir():
        _refuse_no_model(path)
        refuse_other_revision(path, settings.revision, trusts_code=settings.trust_remote_code)
        return path
    if path.exists():
        raise OperatorError(f"{path} is a file, where the folder with a model's files is expected", category=MISSING)
    if source.startswith((".", "/", "~")):
        raise OperatorError(f"the model folder {path} does not exist", category=MISSING)
    package = package_folder(source) if settings.revision is None else None
    return package or _hub_cache_folder(source, settings.revision)


def _refuse_no_model(folder: Path) -> None:
    """Raises OperatorError if the folder has none of the files by which a model is known."""
    if any((folder / name).is_file() for name in ("config.json", MODULES, CONFIG)):
        return
    weights = sorted(path.name for form in OTHER_FORMATS for path in folder.glob(form))
    there = f"; {weights[0]} is of a format that is not read" if weights else "" if any(folder.iterdir()) else "; it is empty"
    raise OperatorError(
        f"the folder {folder} holds no model: there is neither modules.json nor config.json in it{there}", category=MISSING
    )


def _hub_cache_folder(source: str, revision: str | None) -> Path | None:
    try:
        import huggingface_hub  # noqa: PLC0415 - half a second, which a start from local files saves
    except ModuleNotFoundError:  # an image that only serves compiled models does not have it
        return None
    try:
        folder = Path(
            huggingface_hub.snapshot_download(source, revision=revision, ignore_patterns=NOT_NEEDED, local_files_only=True)
        )
    except (huggingface_hub.errors.LocalEntryNotFoundError, ValueError):  # ValueError: `source` cannot be a hub id
        return None
    is_whole = (folder / MODULES).is_file() or _has_no_modules(source, revision)
    is_whole = is_whole and all((part / "config.json").is_file() or is_adapter(part) for part in transformer_folders(folder))
    return folder if is_whole and weights_files(folder) else None


def _has_no_modules(source: str, revision: str | None) -> bool:
    """Whether the cache records that a model on the hub has no modules.json.

    A program that reads only the network caches no more than that. Without its modules the model would be pooled differently.
    """
    import huggingface_hub  # noqa: PLC0415 - as above

    known = huggingface_hub.try_to_load_from_cache(source, MODULES, revision=revision)
    if known is huggingface_hub._CACHED_NO_EXIST:  # noqa: SLF001 - its documented name
        return True
    if not hasattr(huggingface_hub, "get_cached_repo_tree"):  # an older release caches no list of the hub's files
        return False
    try:
        files = huggingface_hub.get_cached_repo_tree(source, revision=revision)
    except (huggingface_hub.errors.CachedRepoTreeNotFoundError, ValueError):
        return False
    return all(file.path != MODULES for file in files)
